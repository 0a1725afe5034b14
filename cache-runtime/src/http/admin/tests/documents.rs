//! The OpenAPI document and the page.

use super::*;

#[tokio::test]
async fn every_route_is_documented_and_every_documented_route_answers() {
    let service = of(&Cache::memory());
    let document = get(&service, "/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let documented: Vec<(String, String)> = document["paths"]
        .as_object()
        .into_iter()
        .flatten()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().into_iter().flatten();
            methods.map(|(method, _)| (method.to_uppercase(), path.clone()))
        })
        .collect();

    for route in &routes::ROUTES {
        let is_documented = documented
            .iter()
            .any(|(method, path)| method == route.method && path == route.path);
        assert!(is_documented, "{} {}", route.method, route.path);
    }
    for (method, path) in &documented {
        let asked = path.replace("{name}", "x");
        let got = send(&service, local(method, &asked), "").await;
        let is_known = got.status != 405 && !got.text.contains("no route has this path");
        assert!(is_known, "{method} {path} {got:?}");
        let statuses = &document["paths"][path][method.to_lowercase()]["responses"];
        assert!(
            statuses.get(got.status.to_string()).is_some(),
            "{method} {path}: {}",
            got.status
        );
    }
}

#[tokio::test]
async fn responses_have_the_documented_fields() {
    let cache = Cache::memory();
    cache.set("event:1", &1, 60_u64).await;
    let service = of(&cache);
    let document = get(&service, "/openapi.json").await.json();

    for (path, schema) in [
        ("/api/status", "Status"),
        ("/api/keys", "KeyPage"),
        ("/api/entry?key=event:1", "Entry"),
        ("/api/usage", "Usage"),
        ("/api/switches", "Switches"),
        ("/api/jobs", "Jobs"),
        ("/api/catalog", "Catalog"),
        ("/actuator/caches", "Caches"),
    ] {
        let got = get(&service, path).await;
        assert_eq!(got.status, 200, "{path} {got:?}");
        let schema = &document["components"]["schemas"][schema];
        compare(&document, schema, &got.json(), path);
    }
}

/// Fails if a value is not what its schema describes.
fn compare(document: &Value, schema: &Value, json: &Value, at: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let named = document.pointer(reference.trim_start_matches('#'));
        return compare(document, named.expect("a schema"), json, at);
    }
    if let Some(options) = schema["anyOf"].as_array() {
        let is_null = |option: &&Value| (option["type"] == "null") == json.is_null();
        let option = options.iter().find(is_null).expect("an option");
        return compare(document, option, json, at);
    }
    let kind = match json {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let is = |known: &Value| known == kind || (known == "number" && kind == "integer");
    let is_described = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().any(is),
        known => is(known),
    };
    assert!(is_described, "{at} is {json}");
    if let Some(words) = schema["enum"].as_array() {
        assert!(words.contains(json), "{at} is {json}");
    }
    for (number, item) in json.as_array().into_iter().flatten().enumerate() {
        compare(document, &schema["items"], item, &format!("{at}[{number}]"));
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().expect("a name");
        assert!(json.get(name).is_some(), "{at} lacks `{name}`");
    }
    let more = &schema["additionalProperties"];
    if let Some(properties) = schema["properties"].as_object().or(more.as_object()) {
        for (name, value) in json.as_object().into_iter().flatten() {
            let at = format!("{at} {name}");
            let known = properties.get(name).or(more.is_object().then_some(more));
            compare(document, known.expect(&at), value, &at);
        }
    }
}

#[expect(dead_code, reason = "the function is known without being called")]
#[cacheable(key = "admin:named:<name>", ttl = "1m", cache = cache, crate = crate)]
async fn named(cache: &Cache, name: &str) -> usize {
    let _ = cache;
    name.len()
}

#[tokio::test]
async fn findings_of_the_catalog_are_in_the_api_and_on_the_page() {
    let service = of(&Cache::memory());

    let catalog = get(&service, "/api/catalog").await.json();
    let page = get(&service, "/").await.text;

    let name = concat!(module_path!(), "::named");
    let findings = catalog["findings"].as_array().expect("findings");
    let finding = findings
        .iter()
        .find(|finding| finding["functions"] == json!([name]))
        .expect("a finding");
    assert_eq!(finding["code"], "text-in-key");
    for text in ["message", "advice"] {
        let text = finding[text].as_str().expect("a text");
        let text = text.replace('<', "&lt;").replace('>', "&gt;");
        assert!(page.contains(&format!(">{text}</p>")), "{text}\n{page}");
    }
    assert!(
        page.contains(&format!(
            "<strong>text-in-key</strong><small>{name}</small>"
        )),
        "{page}"
    );
}

#[tokio::test]
async fn the_page_is_painted_by_the_server_and_its_files_exist() {
    let cache = Cache::memory();
    cache.set("event:</script>", &1, 60_u64).await;
    cache.get::<i32>("event:</script>").await;
    let service = of(&cache);

    let page = get(&service, "/").await;

    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    assert!(
        page.text.contains("<dt>Health</dt><dd>healthy</dd>"),
        "{}",
        page.text
    );
    assert!(page.text.contains("100.0 %"), "{}", page.text);
    assert!(!page.text.contains("{{"), "everything is filled in");
    let (_, data) = page.text.split_once("id=\"view\">").expect("a view");
    let (data, _) = data.split_once("</script>").expect("its end");
    let view: Value = serde_json::from_str(data).expect("JSON");
    assert_eq!(view["hit_rate"], 1.0);
    let links = page.text.split(['"']).filter(|text| {
        [".css", ".js", ".svg"]
            .iter()
            .any(|end| text.ends_with(end))
    });
    let mut files = 0;
    for link in links {
        files += 1;
        assert_eq!(
            get(&service, &format!("/{link}")).await.status,
            200,
            "{link}"
        );
    }
    assert_eq!(files, 3);
}

#[tokio::test]
async fn every_response_is_guarded_by_headers() {
    let service = of(&Cache::memory());
    for path in ["/", "/style.css", "/app.js", "/api/status", "/nothing"] {
        let got = get(&service, path).await;
        let policy = got.headers["content-security-policy"]
            .to_str()
            .expect("ASCII");
        assert!(
            policy.contains("default-src 'none'") && !policy.contains("unsafe"),
            "{policy}"
        );
        assert_eq!(got.headers["x-content-type-options"], "nosniff");
        assert_eq!(got.headers["x-frame-options"], "DENY");
        assert!(!got.headers.contains_key("access-control-allow-origin"));
    }
    assert_eq!(
        get(&service, "/api/status").await.headers["cache-control"],
        "no-store"
    );
    let head = send(&service, local("HEAD", "/api/status"), "").await;
    assert_eq!((head.status, &*head.text), (200, ""));
}

#[tokio::test(start_paused = true)]
async fn a_stream_sends_the_view_and_ends_by_itself() {
    let service = of(&Cache::memory());

    let stream = get(&service, "/api/events").await;

    assert_eq!(stream.headers["content-type"], "text/event-stream");
    let events: Vec<_> = stream
        .text
        .split("\n\n")
        .filter(|event| !event.is_empty())
        .collect();
    assert_eq!(events.len(), 8);
    for event in events {
        let (_, data) = event.split_once("data: ").expect("data");
        let view: Value = serde_json::from_str(data).expect("JSON");
        assert_eq!(view["health"]["mode"], "memory");
    }
}

#[tokio::test(start_paused = true)]
async fn the_view_is_computed_once_for_all_pages_and_not_without_a_page() {
    let service = with_tokens(&Cache::memory());
    assert!(events::is_idle(&service.shared.feed));
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = tasks();

    let pages = (0..events::MAX_STREAMS).map(|page| {
        let (service, token) = (&service, if page == 0 { READ } else { WRITE });
        async move { send(service, remote("GET", "/api/events", token), "").await }
    });
    let while_open = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        tasks()
    };
    let (pages, while_open) =
        futures_util::future::join(futures_util::future::join_all(pages), while_open).await;

    assert_eq!(while_open, before + 1, "one task for all pages");
    let mut computed = std::collections::HashSet::new();
    for (number, page) in pages.iter().enumerate() {
        let views = page
            .text
            .split("\n\n")
            .filter_map(|event| event.split_once("data: "));
        let mut events = 0;
        for (_, view) in views {
            events += 1;
            let mut view: Value = serde_json::from_str(view).expect("JSON");
            let role = if number == 0 { "read" } else { "write" };
            assert_eq!(view["role"].take(), role);
            computed.insert(view.to_string());
        }
        assert_eq!(events, 8);
    }
    assert_eq!(computed.len(), 8, "each view differs in its times");
    tokio::time::advance(Duration::from_secs(2)).await;
    while !events::is_idle(&service.shared.feed) {
        tokio::task::yield_now().await;
    }
    // A page that is opened later starts it again.
    assert_eq!(get_event(&service).await["health"]["mode"], "memory");
}

/// Returns the first view of a new stream.
async fn get_event(service: &AdminService) -> Value {
    let request = remote("GET", "/api/events", READ).body(String::new());
    let stream = service.clone().oneshot(request.expect("a request")).await;
    let frame = stream.expect("a stream").into_body().frame().await;
    let data = frame
        .and_then(Result::ok)
        .and_then(|frame| frame.into_data().ok());
    let text = String::from_utf8(data.expect("data").to_vec()).expect("UTF-8");
    let (_, view) = text.split_once("data: ").expect("data");
    serde_json::from_str(view).expect("JSON")
}

#[tokio::test]
async fn the_number_of_streams_is_limited() {
    let service = of(&Cache::memory());
    let mut open = Vec::new();
    for _ in 0..events::MAX_STREAMS {
        let request = local("GET", "/api/events")
            .body(String::new())
            .expect("a request");
        open.push(service.clone().oneshot(request).await.expect("a stream"));
    }

    let more = get(&service, "/api/events").await;
    assert!(
        more.status == 503 && more.detail().contains("pages are open"),
        "{more:?}"
    );
    assert_eq!(more.headers["retry-after"], "1");

    drop(open.pop());
    let request = local("GET", "/api/events")
        .body(String::new())
        .expect("a request");
    assert_eq!(
        service
            .clone()
            .oneshot(request)
            .await
            .expect("a stream")
            .status(),
        200
    );
}
