//! What a client can change.

use ::http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use serde_json::{Value, json};

use super::Asked;
use super::problem::Problem;
use super::routes::Action;
use super::view::data;
use crate::escape::excerpt;
use crate::limit::Identity;

/// Characters of a name in the log.
const LOGGED: usize = 100;

/// What was done.
pub(super) struct Done {
    /// To what, for the log.
    pub(super) what: String,
    pub(super) outcome: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Evict {
    key: Option<String>,
    pattern: Option<String>,
    #[serde(default)]
    all: bool,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Switch {
    pattern: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Client {
    policy: String,
    client: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(
    not(feature = "sessions"),
    expect(dead_code, reason = "there are none to end")
)]
struct EndSessions {
    user: String,
    id: Option<String>,
}

/// A body of a route that has no fields.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

impl Asked<'_> {
    pub(super) async fn act(&self, action: Action) -> Result<Done, Problem> {
        self.parameters(&[])?;
        match action {
            Action::Evict => self.evict(self.fields()?).await,
            Action::SwitchOff => {
                let Switch { pattern } = self.fields()?;
                self.shared.cache.disable(&pattern)?;
                let outcome = json!({ "off": self.shared.cache.patterns_off() });
                Ok(self.done(&pattern, outcome))
            }
            Action::SwitchOn => {
                let Switch { pattern } = self.fields()?;
                if !self.shared.cache.enable(&pattern)? {
                    let text = "this pattern is not switched off; `api/switches` lists those that are, as they were written";
                    return Err(Problem::new(StatusCode::NOT_FOUND, text));
                }
                let outcome = json!({ "off": self.shared.cache.patterns_off() });
                Ok(self.done(&pattern, outcome))
            }
            Action::RunJob => self.run_job(),
            Action::ResetClient => self.reset(self.fields()?).await,
            Action::EndSessions => self.end_sessions(self.fields()?).await,
            // These change nothing.
            _ => Ok(self.done("", Value::Null)),
        }
    }

    async fn evict(&self, targets: Evict) -> Result<Done, Problem> {
        let Evict {
            key,
            pattern,
            all,
            dry_run,
        } = targets;
        let cache = &self.shared.cache;
        let (what, is_pattern) = match (key, pattern, all) {
            (Some(key), None, false) => (key, false),
            (None, Some(pattern), false) => (pattern, true),
            (None, None, true) => ("*".to_owned(), true),
            _ => {
                let text = "name exactly one target: `\"key\": \"event:1\"`, `\"pattern\": \"event:*\"` or `\"all\": true`";
                return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, text));
            }
        };
        let mut outcome = match (dry_run, is_pattern, all) {
            (true, true, _) => {
                let _place = self.shared.walks.begin()?;
                data(cache.count_matching(&what).await?)
            }
            (true, false, _) => {
                let keys = u64::from(cache.entry_at(&what, false).await?.is_some());
                json!({ "keys": keys, "is_complete": true })
            }
            (false, _, true) => data(cache.clear().await),
            (false, true, false) => data(cache.try_delete_matching(&what).await?),
            (false, false, false) => data(cache.try_delete(&what).await?),
        };
        outcome["dry_run"] = dry_run.into();
        Ok(self.done(&what, outcome))
    }

    fn run_job(&self) -> Result<Done, Problem> {
        if !self.body.is_empty() {
            let Nothing {} = self.fields()?;
        }
        let mut jobs = self.shared.config.jobs.iter();
        let Some(job) = jobs.find(|job| job.name == self.name) else {
            let text = "no job has this name; `api/jobs` lists them";
            return Err(Problem::new(StatusCode::NOT_FOUND, text));
        };
        if !job.start() {
            let text = "the job is running; wait for its end";
            return Err(Problem::new(StatusCode::CONFLICT, text));
        }
        Ok(Done {
            what: excerpt(&self.name, LOGGED),
            outcome: job.report(),
        })
    }

    async fn reset(&self, Client { policy, client }: Client) -> Result<Done, Problem> {
        let Some(identity) = Identity::of_name(&client) else {
            let text = "`client` is not the name of a client; use one that `api/limits/top` lists, such as `ip4:192.0.2.1` or `user:42`";
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, text));
        };
        self.limiter()?.reset(&policy, &identity).await?;
        Ok(Done {
            what: format!("{} of {}", self.person(&client), excerpt(&policy, LOGGED)),
            outcome: json!({ "reset": true }),
        })
    }

    #[cfg(feature = "sessions")]
    async fn end_sessions(&self, EndSessions { user, id }: EndSessions) -> Result<Done, Problem> {
        let ended = self.sessions()?.end(&user, id.as_deref()).await;
        let ended = ended.map_err(|error| super::reads::unavailable(&error))?;
        Ok(Done {
            what: self.person(&user),
            outcome: json!({ "ended": ended }),
        })
    }

    #[cfg(not(feature = "sessions"))]
    async fn end_sessions(&self, _: EndSessions) -> Result<Done, Problem> {
        Err(super::reads::no_sessions())
    }

    /// Returns the fields of the body, which is a JSON object.
    fn fields<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        // Serde would also take the fields from an array, in their order.
        let is_array = self.body.trim_ascii_start().starts_with(b"[");
        if is_array {
            let text = "the body is an array; send an object as `openapi.json` describes it";
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, text));
        }
        serde_json::from_slice(&self.body).map_err(|error| {
            let is_json = error.classify() == Category::Data;
            let error = excerpt(&error.to_string(), 200);
            match is_json {
                true => Problem::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    format!("the body has wrong fields: {error}; `openapi.json` describes them"),
                ),
                false => Problem::new(
                    StatusCode::BAD_REQUEST,
                    format!("the body is not JSON: {error}; send an object as `openapi.json` describes it"),
                ),
            }
        })
    }

    fn done(&self, pattern: &str, outcome: Value) -> Done {
        Done {
            what: self.shared.cache.shown_in_logs(pattern),
            outcome,
        }
    }

    /// Returns how the log names a client or a user, who may be a person.
    fn person(&self, name: &str) -> String {
        match self.shared.cache.config().mask_keys {
            true => self.shared.cache.shown_in_logs(name),
            false => excerpt(name, LOGGED),
        }
    }
}
