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
use crate::catalog::Template;
use crate::escape::excerpt;
use crate::key::Pattern;
use crate::limit::Identity;

/// Characters of a name in the log.
const LOGGED: usize = 100;

/// What a request asks to change.
pub(super) enum Change {
    Evict { target: Target, dry_run: bool },
    SwitchOff(String),
    SwitchOn(String),
    RunJob,
    ResetClient(Client),
    EndSessions(EndSessions),
    ClearCaches,
    ClearCache,
}

/// What is evicted.
pub(super) enum Target {
    Key(String),
    Pattern(String),
    Tag(String),
    All,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Evict {
    key: Option<String>,
    pattern: Option<String>,
    tag: Option<String>,
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
pub(super) struct Client {
    policy: String,
    client: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(
    not(feature = "sessions"),
    expect(dead_code, reason = "there are none to end")
)]
pub(super) struct EndSessions {
    user: String,
    id: Option<String>,
}

/// A body of a route that has no fields.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

impl Asked<'_> {
    /// Returns what the request asks to change.
    pub(super) fn change(&self, action: Action) -> Result<Change, Problem> {
        if matches!(action, Action::ClearCache) {
            return Ok(Change::ClearCache);
        }
        self.parameters(&[])?;
        Ok(match action {
            Action::ClearCaches => Change::ClearCaches,
            Action::Evict => self.eviction()?,
            Action::SwitchOff => Change::SwitchOff(self.fields::<Switch>()?.pattern),
            Action::SwitchOn => Change::SwitchOn(self.fields::<Switch>()?.pattern),
            Action::RunJob => {
                if !self.body.is_empty() {
                    let Nothing {} = self.fields()?;
                }
                Change::RunJob
            }
            Action::ResetClient => Change::ResetClient(self.fields()?),
            Action::EndSessions => Change::EndSessions(self.fields()?),
            _ => {
                let text = "this route changes nothing";
                return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, text));
            }
        })
    }

    fn eviction(&self) -> Result<Change, Problem> {
        let Evict {
            key,
            pattern,
            tag,
            all,
            dry_run,
        } = self.fields()?;
        let target = match (key, pattern, tag, all) {
            (Some(key), None, None, false) => Target::Key(key),
            (None, Some(pattern), None, false) => Target::Pattern(pattern),
            (None, None, Some(tag), false) => Target::Tag(tag),
            (None, None, None, true) => Target::All,
            _ => {
                let text = "name exactly one target: `\"key\": \"event:1\"`, `\"pattern\": \"event:*\"`, `\"tag\": \"events\"` or `\"all\": true`";
                return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, text));
            }
        };
        Ok(Change::Evict { target, dry_run })
    }

    /// Returns how the log names what is changed.
    pub(super) fn what(&self, change: &Change) -> String {
        match change {
            Change::Evict { target, .. } => match target {
                Target::Key(text) | Target::Pattern(text) | Target::Tag(text) => self.entries(text),
                Target::All => self.entries("*"),
            },
            Change::SwitchOff(pattern) | Change::SwitchOn(pattern) => self.entries(pattern),
            Change::ClearCaches => self.entries("*"),
            // The one is written in the program, and the other names nothing.
            Change::RunJob | Change::ClearCache => excerpt(&self.name, LOGGED),
            Change::ResetClient(Client { policy, client }) => {
                format!("{} of {}", self.person(client), excerpt(policy, LOGGED))
            }
            Change::EndSessions(EndSessions { user, .. }) => self.person(user),
        }
    }

    pub(super) async fn make(&self, change: Change) -> Result<Value, Problem> {
        let cache = &self.shared.cache;
        match change {
            Change::Evict { target, dry_run } => {
                let mut outcome = match dry_run {
                    true => self.count(target).await?,
                    false => self.evict(target).await?,
                };
                outcome["dry_run"] = dry_run.into();
                Ok(outcome)
            }
            Change::SwitchOff(pattern) => {
                cache.disable(&pattern)?;
                Ok(json!({ "off": cache.patterns_off() }))
            }
            Change::SwitchOn(pattern) => {
                if !cache.enable(&pattern)? {
                    let text = "this pattern is not switched off; `api/switches` lists those that are, as they were written";
                    return Err(Problem::new(StatusCode::NOT_FOUND, text));
                }
                Ok(json!({ "off": cache.patterns_off() }))
            }
            Change::RunJob => self.run_job(),
            Change::ResetClient(client) => self.reset(client).await,
            Change::EndSessions(sessions) => self.end_sessions(sessions).await,
            Change::ClearCaches => self.evict(Target::All).await,
            Change::ClearCache => {
                let (template, _) = self.named_cache()?;
                let pattern = Template::new(template, "").pattern();
                self.evict(Target::Pattern(pattern)).await
            }
        }
    }

    async fn count(&self, target: Target) -> Result<Value, Problem> {
        let cache = &self.shared.cache;
        let pattern = match &target {
            Target::Key(key) => {
                let keys = u64::from(cache.entry_at(key, false).await?.is_some());
                return Ok(json!({ "keys": keys, "is_complete": true }));
            }
            Target::Pattern(pattern) => pattern,
            Target::Tag(tag) => {
                cache.check_tag(tag)?;
                // Nobody knows which entries have a tag.
                return Ok(json!({ "keys": 0, "is_complete": false }));
            }
            Target::All => "*",
        };
        let _place = self.shared.walks.begin()?;
        Ok(data(cache.count_matching(pattern).await?))
    }

    async fn evict(&self, target: Target) -> Result<Value, Problem> {
        let cache = &self.shared.cache;
        Ok(data(match target {
            Target::Key(key) => cache.try_delete(&key).await?,
            Target::Pattern(pattern) => cache.try_delete_matching(&pattern).await?,
            Target::Tag(tag) => cache.try_delete_tagged(&tag).await?,
            Target::All => cache.clear().await,
        }))
    }

    fn run_job(&self) -> Result<Value, Problem> {
        let mut jobs = self.shared.config.jobs.iter();
        let Some(job) = jobs.find(|job| job.name == self.name) else {
            let text = "no job has this name; `api/jobs` lists them";
            return Err(Problem::new(StatusCode::NOT_FOUND, text));
        };
        if !job.start() {
            let text = "the job is running; wait for its end";
            return Err(Problem::new(StatusCode::CONFLICT, text));
        }
        Ok(job.report())
    }

    async fn reset(&self, Client { policy, client }: Client) -> Result<Value, Problem> {
        let Some(identity) = Identity::of_name(&client) else {
            let text = "`client` is not the name of a client; use one that `api/limits/top` lists, such as `ip4:192.0.2.1` or `user:42`";
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, text));
        };
        self.limiter()?.reset(&policy, &identity).await?;
        Ok(json!({ "reset": true }))
    }

    #[cfg(feature = "sessions")]
    async fn end_sessions(&self, EndSessions { user, id }: EndSessions) -> Result<Value, Problem> {
        let ended = self.sessions()?.end(&user, id.as_deref()).await;
        let ended = ended.map_err(|error| super::reads::unavailable(&error))?;
        Ok(json!({ "ended": ended }))
    }

    #[cfg(not(feature = "sessions"))]
    async fn end_sessions(&self, _: EndSessions) -> Result<Value, Problem> {
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

    /// Returns how the log names entries. A text that names none is a mistake of the client, which the log shows unless keys are masked.
    fn entries(&self, text: &str) -> String {
        let cache = &self.shared.cache;
        let is_valid = Pattern::parse(cache.prefix(), text).is_ok();
        match is_valid || cache.config().mask_keys {
            true => cache.shown_in_logs(text),
            false => excerpt(text, LOGGED),
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
