//! The routes: method, path, and what a client needs to use them.

use ::http::{Method, StatusCode};

use super::page::{ASSETS, Asset};
use super::problem::Problem;
use super::query::decoded;

/// What a client needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Nothing where tokens are set; otherwise the same as [`Read`](Self::Read).
    Nothing,
    Read,
    Write,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    Page,
    Asset(&'static Asset),
    /// Leads to the page, which has the form.
    LoginPage,
    Login,
    Logout,
    OpenApi,
    Status,
    Stats,
    View,
    Events,
    Catalog,
    Keys,
    Entry,
    Usage,
    Evict,
    Switches,
    SwitchOff,
    SwitchOn,
    Jobs,
    RunJob,
    TopClients,
    ResetClient,
    Sessions,
    EndSessions,
    Caches,
    OneCache,
    ClearCaches,
    ClearCache,
}

#[derive(Debug)]
pub(super) struct Route {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) needs: Needs,
    pub(super) action: Action,
}

const fn get(path: &'static str, action: Action) -> Route {
    Route {
        method: "GET",
        path,
        needs: Needs::Read,
        action,
    }
}

const fn post(path: &'static str, action: Action) -> Route {
    Route {
        method: "POST",
        path,
        needs: Needs::Write,
        action,
    }
}

const fn delete(path: &'static str, action: Action) -> Route {
    Route {
        method: "DELETE",
        ..post(path, action)
    }
}

/// All routes but the files of the page. The API is described in `openapi.json`.
pub(super) static ROUTES: [Route; 27] = [
    get("/", Action::Page),
    Route {
        needs: Needs::Nothing,
        ..get("/login", Action::LoginPage)
    },
    Route {
        needs: Needs::Nothing,
        ..post("/login", Action::Login)
    },
    Route {
        needs: Needs::Nothing,
        ..post("/logout", Action::Logout)
    },
    get("/openapi.json", Action::OpenApi),
    get("/api/status", Action::Status),
    get("/api/stats", Action::Stats),
    get("/api/view", Action::View),
    get("/api/events", Action::Events),
    get("/api/catalog", Action::Catalog),
    get("/api/keys", Action::Keys),
    get("/api/entry", Action::Entry),
    get("/api/usage", Action::Usage),
    post("/api/evict", Action::Evict),
    get("/api/switches", Action::Switches),
    post("/api/switches/off", Action::SwitchOff),
    post("/api/switches/on", Action::SwitchOn),
    get("/api/jobs", Action::Jobs),
    post("/api/jobs/{name}/run", Action::RunJob),
    get("/api/limits/top", Action::TopClients),
    post("/api/limits/reset", Action::ResetClient),
    get("/api/sessions", Action::Sessions),
    post("/api/sessions/end", Action::EndSessions),
    get("/actuator/caches", Action::Caches),
    delete("/actuator/caches", Action::ClearCaches),
    get("/actuator/caches/{name}", Action::OneCache),
    delete("/actuator/caches/{name}", Action::ClearCache),
];

static FILES: [Route; ASSETS.len()] = {
    let mut files = [const {
        Route {
            needs: Needs::Nothing,
            ..get("", Action::Page)
        }
    }; ASSETS.len()];
    let mut at = 0;
    while at < ASSETS.len() {
        files[at].path = ASSETS[at].path;
        files[at].action = Action::Asset(&ASSETS[at]);
        at += 1;
    }
    files
};

impl Action {
    /// The name in the log.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Evict => "evict",
            Self::SwitchOff => "switch off",
            Self::SwitchOn => "switch on",
            Self::RunJob => "run a job",
            Self::ResetClient => "reset a client",
            Self::EndSessions => "end sessions",
            Self::ClearCaches => "clear the caches",
            Self::ClearCache => "clear a cache",
            _ => "read",
        }
    }
}

/// Returns the route of a request, and what stands for its placeholder.
pub(super) fn find(method: &Method, path: &str) -> Result<(&'static Route, String), Problem> {
    // A router may pass the root without its slash.
    let path = if path.is_empty() { "/" } else { path };
    let method = match *method {
        Method::HEAD => "GET",
        _ => method.as_str(),
    };
    let mut allowed = Vec::new();
    for route in ROUTES.iter().chain(&FILES) {
        let Some(name) = matched(route.path, path) else {
            continue;
        };
        if route.method == method {
            let name = decoded(&name.replace('+', "%2B")).ok_or_else(|| {
                let text =
                    "the path is not percent-encoded UTF-8; encode it as `encodeURIComponent` does";
                Problem::new(StatusCode::BAD_REQUEST, text)
            })?;
            return Ok((route, name));
        }
        allowed.push(match route.method {
            "GET" => "GET, HEAD",
            other => other,
        });
    }
    if allowed.is_empty() {
        let text = "no route has this path; `openapi.json` lists the routes";
        return Err(Problem::new(StatusCode::NOT_FOUND, text));
    }
    Err(Problem::method(allowed.join(", ")))
}

/// Returns what stands for the placeholder of a template that matches, or an empty text if it has none.
fn matched<'a>(template: &str, path: &'a str) -> Option<&'a str> {
    let Some((before, after)) = template.split_once("{name}") else {
        return (template == path).then_some("");
    };
    let name = path.strip_prefix(before)?.strip_suffix(after)?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}
