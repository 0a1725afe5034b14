//! The page: what it consists of, and its first paint.

use std::fmt::Write as _;
use std::sync::Arc;

use ::http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE};
use ::http::{HeaderValue, Response, StatusCode};
use serde_json::Value;

use super::access::Who;
use super::problem::BEARER;
use super::view::view_for;
use super::{Answer, Shared};
use crate::catalog::Catalog;
use crate::http::body::ResponseBody;

/// A file of the page.
#[derive(Debug)]
pub(super) struct Asset {
    pub(super) path: &'static str,
    kind: &'static str,
    text: &'static str,
}

const fn script(path: &'static str, text: &'static str) -> Asset {
    Asset {
        path,
        kind: "text/javascript; charset=utf-8",
        text,
    }
}

pub(super) static ASSETS: [Asset; 6] = [
    Asset {
        path: "/style.css",
        kind: "text/css; charset=utf-8",
        text: include_str!("page/style.css"),
    },
    Asset {
        path: "/icon.svg",
        kind: "image/svg+xml",
        text: include_str!("page/icon.svg"),
    },
    script("/app.js", include_str!("page/app.js")),
    script("/sections.js", include_str!("page/sections.js")),
    script("/charts.js", include_str!("page/charts.js")),
    script("/tools.js", include_str!("page/tools.js")),
];

const PAGE: &str = include_str!("page/index.html");
const LOGIN: &str = include_str!("page/login.html");
const OPEN_API: &str = include_str!("openapi.json");

pub(super) fn asset(asset: &Asset) -> Answer {
    let mut response = of(asset.kind, asset.text.to_owned());
    // Another version of the service has other files under the same names.
    let again = HeaderValue::from_static("no-cache");
    response.headers_mut().insert(CACHE_CONTROL, again);
    response
}

pub(super) fn open_api() -> Answer {
    of("application/json", OPEN_API.to_owned())
}

/// The page on which a person logs in.
pub(super) fn login(status: StatusCode, problem: Option<&str>) -> Answer {
    let problem = problem.map(|text| format!("<p class=\"bad\" role=\"alert\">{text}</p>"));
    let mut response = html(LOGIN.replace("{{problem}}", &problem.unwrap_or_default()));
    *response.status_mut() = status;
    response.headers_mut().insert(WWW_AUTHENTICATE, BEARER);
    response
}

/// Leads to the page.
pub(super) fn back() -> Answer {
    let mut response = Response::new(ResponseBody::default());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let page = HeaderValue::from_static("./");
    response.headers_mut().insert(LOCATION, page);
    response
}

/// The page with the numbers of this moment, readable before a script runs.
pub(super) async fn page(shared: &Arc<Shared>, who: &Who) -> Answer {
    let view = view_for(shared, who.role).await;
    // `<` would end the element that holds it.
    let data = view.to_string().replace('<', "\\u003c");
    let page = PAGE
        .replace("{{status}}", &status(&view))
        .replace("{{rows}}", &rows(&view))
        .replace("{{findings}}", &findings(&shared.catalog))
        .replace("{{view}}", &data);
    html(page)
}

fn status(view: &Value) -> String {
    let health = &view["health"];
    let text = |value: &Value| escaped(value.as_str().unwrap_or_default());
    let rate = view["hit_rate"].as_f64();
    let rate = rate.map_or("–".to_owned(), |rate| format!("{:.1} %", rate * 100.0));
    let mut status = String::new();
    for (name, value) in [
        ("Health", text(&health["status"])),
        ("Mode", text(&health["mode"])),
        ("Hit rate", rate),
        ("Environment", text(&view["environment"])),
    ] {
        let _ = write!(status, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    }
    status
}

fn rows(view: &Value) -> String {
    let mut rows = String::new();
    for row in view["functions"].as_array().into_iter().flatten() {
        let rate = row["hit_rate"].as_f64();
        let rate = rate.map_or("–".to_owned(), |rate| format!("{:.1} %", rate * 100.0));
        let _ = write!(
            rows,
            "<tr><th scope=\"row\">{}<small>{}</small></th><td>{rate}</td><td>{}</td></tr>",
            escaped(row["function"].as_str().unwrap_or_default()),
            escaped(row["cache"].as_str().unwrap_or_default()),
            row["gets"]
        );
    }
    rows
}

/// The findings of the lint. They are the same as long as the program runs, so no script changes them.
fn findings(catalog: &Catalog) -> String {
    if catalog.findings.is_empty() {
        let number = catalog.functions.len();
        return format!("<p class=\"none\">No findings in {number} annotated functions.</p>");
    }
    let mut list = "<ul class=\"plain findings\">".to_owned();
    for finding in &catalog.findings {
        let _ = write!(
            list,
            "<li><strong>{}</strong><small>{}</small><p>{}</p><p class=\"hint\">{}</p></li>",
            finding.code,
            escaped(&finding.functions.join(", ")),
            escaped(&finding.message),
            escaped(&finding.advice)
        );
    }
    list + "</ul>"
}

fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |mut safe, c| {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
        safe
    })
}

fn html(text: String) -> Answer {
    of("text/html; charset=utf-8", text)
}

fn of(kind: &'static str, text: String) -> Answer {
    let mut response = Response::new(ResponseBody::new(text));
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Code, Finding};

    #[test]
    fn a_finding_is_shown_with_code_functions_message_and_advice() {
        let finding = Finding {
            code: Code::NeverEvicted,
            functions: vec!["app::find", "app::latest"],
            message: "entries of `event:<id>` live for 1d".to_owned(),
            advice: "add `#[cache_evict]` & test it".to_owned(),
        };

        let shown = findings(&Catalog {
            functions: Vec::new(),
            findings: vec![finding],
        });

        assert_eq!(
            shown,
            "<ul class=\"plain findings\"><li><strong>never-evicted</strong><small>app::find, app::latest</small><p>entries of \
             `event:&lt;id&gt;` live for 1d</p><p class=\"hint\">add `#[cache_evict]` &amp; test it</p></li></ul>"
        );
    }

    #[test]
    fn a_clean_catalog_is_shown_as_having_no_findings() {
        let shown = findings(&Catalog {
            functions: Vec::new(),
            findings: Vec::new(),
        });

        assert_eq!(
            shown,
            "<p class=\"none\">No findings in 0 annotated functions.</p>"
        );
    }

    #[test]
    fn all_files_together_are_smaller_than_100_kb() {
        let files: usize = ASSETS.iter().map(|asset| asset.text.len()).sum();

        let all = files + PAGE.len() + LOGIN.len();

        assert!(all < 100_000, "{all} bytes");
    }

    #[test]
    fn the_page_has_nothing_inline_and_names_no_other_origin() {
        let texts = ASSETS.iter().map(|asset| asset.text);
        for text in texts.chain([PAGE, LOGIN]) {
            let without_svg = text.replace("http://www.w3.org/2000/svg", "");
            for foreign in [
                "http://",
                "https://",
                "style=\"",
                "onclick=",
                "javascript:",
                "innerHTML",
            ] {
                assert!(!without_svg.contains(foreign), "{foreign}");
            }
        }
    }
}
