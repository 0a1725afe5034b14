//! The sessions of a user, whatever a service keeps in them.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::session::{SessionError, SessionStore};
use crate::store::BoxFuture;

/// The most sessions in one response. A user cannot have more than `sessions_per_user`, which may be larger.
const SHOWN: usize = 1_000;

/// A store of sessions without the type of their extension.
pub(super) trait UserSessions: Send + Sync {
    fn list<'a>(&'a self, user: &'a str) -> BoxFuture<'a, Result<Vec<Value>, SessionError>>;

    /// Ends one session, or all of them. Returns how many ended.
    fn end<'a>(
        &'a self,
        user: &'a str,
        id: Option<&'a str>,
    ) -> BoxFuture<'a, Result<usize, SessionError>>;
}

impl<E> UserSessions for SessionStore<E>
where
    E: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    fn list<'a>(&'a self, user: &'a str) -> BoxFuture<'a, Result<Vec<Value>, SessionError>> {
        Box::pin(async move {
            let sessions = self.list_user(user).await?;
            let shown = sessions.into_iter().take(SHOWN).map(|session| {
                let data = &session.data;
                json!({
                    "id": session.id,
                    "created_at": data.created_at,
                    "last_activity": data.last_activity,
                    "expires_at": session.expires_at,
                    "ip_address": data.ip_address,
                    "user_agent": data.user_agent,
                })
            });
            Ok(shown.collect())
        })
    }

    fn end<'a>(
        &'a self,
        user: &'a str,
        id: Option<&'a str>,
    ) -> BoxFuture<'a, Result<usize, SessionError>> {
        Box::pin(async move {
            match id {
                Some(id) => self.destroy_listed(user, id).await.map(usize::from),
                None => self.destroy_user(user, None).await,
            }
        })
    }
}
