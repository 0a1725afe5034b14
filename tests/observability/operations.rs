//! Alerts and the dashboard in `ops/`: promtool accepts them, and they use metrics that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cache_runtime::Cache;
use serde_json::{Value, json};

use crate::exposition::in_redis;
use crate::promtool::promtool;

fn ops(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../ops")
        .join(file)
}

fn text(file: &str) -> String {
    fs::read_to_string(ops(file)).expect("the file exists")
}

/// The names of all series, without labels.
async fn exported() -> BTreeSet<String> {
    let (_server, redis) = in_redis().await;
    redis.health().detail().await;
    let texts = [Cache::memory(), redis].map(|cache| cache.prometheus());
    let lines = texts.iter().flat_map(|text| text.lines());
    let mut names: BTreeSet<_> = lines
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(['{', ' ']).next().unwrap_or_default().to_owned())
        .collect();
    // They have no series before limiters exist and reject a request.
    names.extend(
        [
            "cache_limit_decisions_total",
            "cache_limit_rejections_total",
        ]
        .map(str::to_owned),
    );
    names
}

/// The words of a PromQL expression that begin like our metrics.
fn metrics_in(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("cache_"))
}

/// The expressions of all panels of the dashboard, as Grafana sends them.
fn panels() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&text("grafana.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").clone();
    let mut expressions = Vec::new();
    for panel in panels {
        let title = panel["title"].as_str().expect("a title").to_owned();
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().expect("an expression");
            let expression = expression
                .replace("$__rate_interval", "5m")
                .replace("$__range", "1h");
            expressions.push((title.clone(), expression));
        }
    }
    expressions
}

#[test]
fn each_alert_is_valid_and_has_a_case_in_which_it_fires() {
    let (rules, cases) = (ops("alerts.yml"), ops("alerts_test.yml"));

    promtool(&["check", "rules", &rules.to_string_lossy()], "");
    promtool(&["test", "rules", &cases.to_string_lossy()], "");

    let (rules, cases) = (text("alerts.yml"), text("alerts_test.yml"));
    let names = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let names: BTreeSet<_> = names.collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        let fires = cases.split("alertname: ").any(|case| {
            let (alert, rest) = case.split_once('\n').unwrap_or((case, ""));
            alert == name && rest.trim_start().starts_with("exp_alerts:")
        });
        assert!(fires, "no case of alerts_test.yml makes {name} fire");
    }
}

#[test]
fn what_compose_mounts_exists_and_prometheus_accepts_it() {
    promtool(
        &["check", "config", &ops("prometheus.yml").to_string_lossy()],
        "",
    );
    let compose = text("compose.yml");
    let mounted: Vec<_> = compose
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- ./")?.split_once(':'))
        .collect();

    for (file, _) in &mounted {
        assert!(ops(file).is_file(), "{file}");
    }
    let is_mounted = |place| mounted.iter().any(|(_, rest)| rest.starts_with(place));
    assert!(is_mounted("/etc/prometheus/alerts.yml"));
    assert!(is_mounted("/var/lib/grafana/dashboards/"));
    assert!(compose.contains("BIND: 0.0.0.0:8080"));
    assert!(text("prometheus.yml").contains("service:8080"));
    let is_ours = |line: &&str| line.contains("dockerfile: ");
    let dockerfile = compose.lines().find(is_ours).expect("a Dockerfile");
    let path = dockerfile.trim().trim_start_matches("dockerfile: ");
    assert!(ops("..").join(path).is_file(), "{path}");
}

#[tokio::test]
async fn alerts_and_panels_use_metrics_that_exist() {
    let exported = exported().await;
    let rules = text("alerts.yml");
    let mut used: Vec<(String, String)> = panels();
    // The texts of alerts name metrics, too, so all of the file is searched, without comments.
    let lines = rules
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    used.extend(lines.map(|line| ("alerts.yml".to_owned(), line.to_owned())));

    let mut found = 0;
    for (place, expression) in &used {
        for name in metrics_in(expression).filter(|name| *name != "cache_runtime") {
            assert!(exported.contains(name), "{place}: {name} does not exist");
            found += 1;
        }
    }

    assert!(found > 60, "only {found} names were found");
}

#[test]
fn the_expressions_of_the_dashboard_are_valid() {
    let rules: Vec<_> = panels()
        .iter()
        .map(|(_, expression)| json!({"record": "panel:expression", "expr": expression}))
        .collect();
    // JSON is YAML.
    let file = json!({"groups": [{"name": "dashboard", "rules": rules}]});
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboard.yml");
    fs::write(&path, file.to_string()).expect("a file");

    promtool(&["check", "rules", &path.to_string_lossy()], "");
}

#[test]
fn panels_do_not_overlap() {
    let dashboard: Value = serde_json::from_str(&text("grafana.json")).expect("JSON");
    let mut taken = BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        let place = |name: &str| panel["gridPos"][name].as_u64().expect("a number");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(x < 24 && taken.insert((x, y)), "{}", panel["title"]);
            }
        }
    }
}
