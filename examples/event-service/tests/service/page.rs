//! The page for operators in a real browser.

use std::path::Path;
use std::{env, fs};

use cache_runtime::testing::RedisServer;
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::support::Service;

/// The hit rate in the row of a function.
const RATE: &str = "document.querySelector('[data-function$=\"Events::find\"], [data-function$=\"events::find\"]')?.children[1].textContent";

fn open(browser: &Browser, service: &Service) {
    browser.open(&format!("http://{}/admin/cache/", service.address));
    browser.wait(
        "the page is live",
        "document.getElementById('live').textContent === 'Live'",
    );
}

/// Fails if the page logged an error or asked another origin.
fn check(browser: &Browser, service: &Service) {
    let errors: Vec<_> = browser.log("browser");
    let errors: Vec<_> = errors
        .iter()
        .filter(|line| line["level"] == "SEVERE")
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
    let own = format!("http://{}/", service.address);
    let mut requests = 0;
    for line in browser.log("performance") {
        let event: Value =
            serde_json::from_str(line["message"].as_str().expect("a text")).expect("JSON");
        let event = &event["message"];
        let from = event["params"]["documentURL"].as_str();
        // A new window has requests of its own.
        if event["method"] == "Network.requestWillBeSent"
            && from.is_some_and(|from| from.starts_with(&own))
        {
            let url = event["params"]["request"]["url"].as_str().expect("a URL");
            let is_own = url.starts_with(&own) || url.starts_with("data:");
            assert!(is_own, "a request to {url}");
            requests += 1;
        }
    }
    assert!(requests > 0, "the log has requests");
}

#[test]
fn an_operator_sees_the_hit_rate_and_switches_and_evicts() {
    let server = RedisServer::start().expect("redis-server starts");
    let service = Service::on(&server);
    let browser = Browser::start();
    open(&browser, &service);
    browser.wait(
        "the catalog has no findings",
        "document.getElementById('findings').textContent.startsWith('No findings in ')",
    );

    for _ in 0..4 {
        service.get("/api/events/1");
    }
    browser.wait("the hit rate rises", &format!("{RATE} === '75.0 %'"));

    browser.write("#switch-pattern", "event:*");
    browser.click("#switch-off button");
    browser.wait(
        "the pattern is off",
        "document.getElementById('off').textContent.includes('event:*')",
    );
    service.get("/api/events/1");
    browser.wait(
        "the bypass is shown",
        "document.getElementById('rows').textContent.includes('miss: disabled')",
    );
    browser.click("#off button");
    browser.wait(
        "nothing is off",
        "document.getElementById('off').textContent.includes('Nothing is off')",
    );

    browser.write("#evict-pattern", "event:*");
    browser.click("#evict button[value=dry]");
    browser.wait(
        "the entries are counted",
        "document.getElementById('evict-result').textContent.startsWith('1 entries match')",
    );
    assert_eq!(crate::support::entries(&server).len(), 1);
    browser.click("#evict-now");
    browser.wait(
        "they are evicted",
        "document.getElementById('evict-result').textContent === '1 keys were removed.'",
    );
    assert!(crate::support::entries(&server).is_empty());

    service.get("/api/events/1");
    browser.click("#keys button");
    browser.wait(
        "the keys are listed",
        "document.querySelector('#found-keys button.key')",
    );
    browser.click("#found-keys button.key");
    browser.wait(
        "the entry is shown",
        "document.getElementById('found-keys').textContent.includes('Load took')",
    );
    check(&browser, &service);
}

#[test]
fn an_operator_sees_an_outage_of_redis_begin_and_end() {
    let mut server = RedisServer::start().expect("redis-server starts");
    let service = Service::on(&server);
    service.get("/api/events/1");
    let browser = Browser::start();
    open(&browser, &service);
    let mode = "document.getElementById('status').textContent";

    server.kill();
    browser.wait(
        "the outage is shown",
        &format!("{mode}.includes('fallback')"),
    );
    browser.wait(
        "its reason is shown",
        "!document.getElementById('problem').hidden",
    );
    browser.open(&format!("http://{}/admin/cache/", service.address));
    browser.wait("the page opens", &format!("{mode}.includes('fallback')"));

    server.restart().expect("redis-server starts");
    browser.wait("its end is shown", &format!("!{mode}.includes('fallback')"));
    browser.wait(
        "the outage is listed",
        "document.querySelector('#periods li')?.textContent.includes('for ')",
    );
    check(&browser, &service);
}

#[test]
fn the_page_fits_every_width_and_paints_soon() {
    let service = Service::start();
    for _ in 0..3 {
        service.get("/api/events/1");
    }
    let browser = Browser::start();
    open(&browser, &service);

    let paint = "performance.getEntriesByName('first-contentful-paint')[0]";
    browser.wait("it is painted", paint);
    let paint = browser.run(&format!("return {paint}.startTime;"));
    let bytes = browser.run("return performance.getEntriesByType('resource').filter((entry) => !entry.name.endsWith('api/events')).reduce((sum, entry) => sum + entry.transferSize, performance.getEntriesByType('navigation')[0].transferSize);");
    println!("first contentful paint after {paint} ms, {bytes} bytes");
    assert!(
        bytes.as_f64().is_some_and(|bytes| bytes < 100_000.0),
        "{bytes}"
    );
    for width in [360, 768, 1280, 1920] {
        browser.resize(width, 900);
        let overflow = browser.run(
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth;",
        );
        assert_eq!(overflow, 0, "at {width} px");
    }
    keep("page.png", &browser.picture());
    check(&browser, &service);
}

#[test]
fn a_person_logs_in_with_the_token() {
    let service = Service::with(&[("ADMIN_TOKEN", "a-token-for-operators")]);
    let browser = Browser::start();
    browser.open(&format!("http://{}/admin/cache/", service.address));

    browser.write("#token", "a-token-for-nobody");
    browser.click("button");
    browser.wait(
        "it is refused",
        "document.body.textContent.includes('This token is wrong')",
    );
    browser.write("#token", "a-token-for-operators");
    browser.click("button");
    browser.wait(
        "the page is live",
        "document.getElementById('live')?.textContent === 'Live'",
    );
    assert_eq!(
        browser.run("return document.cookie;"),
        json!(""),
        "scripts cannot read it"
    );
    browser.click("#logout button");
    browser.wait("the login is back", "document.getElementById('token')");
}

#[test]
fn axe_finds_no_serious_fault_of_accessibility() {
    let service = Service::start();
    for _ in 0..3 {
        service.get("/api/events/1");
    }
    let path = env::var("CACHE_TEST_AXE").unwrap_or_else(|_| {
        concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../target/axe/package/axe.min.js"
        )
        .to_owned()
    });
    let axe = fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!("axe-core is not at {path} ({error}): run `tests/run`, which gets it, or set CACHE_TEST_AXE")
    });
    let browser = Browser::start();
    open(&browser, &service);
    browser.click("#keys button");
    browser.wait(
        "the keys are listed",
        "document.querySelector('#found-keys button.key')",
    );

    for scheme in ["light", "dark"] {
        browser.prefer(scheme);
        // As the body of a script, `this` is not the window, where axe puts itself otherwise.
        browser.run(&format!("{axe}; window.axe = window.axe ?? axe;"));
        let faults = browser.run(
            "const { violations } = await window.axe.run(); return violations.filter(({ impact }) => impact === 'serious' || \
             impact === 'critical').map(({ id, nodes }) => [id, ...nodes.map((node) => node.html)]);",
        );
        assert_eq!(faults, json!([]), "{scheme}");
    }
}

/// Keeps a picture beside the other output of the tests.
fn keep(name: &str, picture: &[u8]) {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, picture).expect("it can be written");
}
