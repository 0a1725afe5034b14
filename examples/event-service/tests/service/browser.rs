//! A headless Chromium, driven over chromedriver: WebDriver is JSON over HTTP, so it needs no client of its own.

use std::env;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::Agent;

/// How long the page may take until it shows something.
const PATIENCE: Duration = Duration::from_secs(5);

/// A browser with one window. Dropping it ends the browser.
pub(crate) struct Browser {
    driver: Child,
    agent: Agent,
    session: String,
    _folder: TempDir,
}

impl Browser {
    /// Starts the browser. The test fails if it is missing.
    pub(crate) fn start() -> Self {
        let program =
            env::var("CACHE_TEST_CHROMEDRIVER").unwrap_or_else(|_| "chromedriver".to_owned());
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let port = port.expect("a free port").port();
        let driver = Command::new(&program)
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let driver = match driver {
            Ok(driver) => driver,
            Err(error) if error.kind() == ErrorKind::NotFound => panic!(
                "`{program}` is missing: install the packages `chromium` and `chromium-driver`, or run `tests/run`, which does it; \
                 CACHE_TEST_CHROMEDRIVER can name another path"
            ),
            Err(error) => panic!("`{program}` does not start: {error}"),
        };
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)));
        let folder = TempDir::new().expect("a folder");
        let mut browser = Self {
            driver,
            agent: agent.build().into(),
            session: format!("http://127.0.0.1:{port}"),
            _folder: folder,
        };
        let profile = browser._folder.path().display().to_string();
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
            // Without a sandbox of its own, because tests may run as root.
            "goog:chromeOptions": { "args": [
                "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,1600",
                format!("--user-data-dir={profile}"),
            ] },
        } } });
        let began = Instant::now();
        let id = loop {
            if let Some(value) = browser.try_send("/session", &wanted) {
                let id = value["sessionId"].as_str();
                break id
                    .unwrap_or_else(|| panic!("no session: {value}"))
                    .to_owned();
            }
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "chromedriver does not answer"
            );
            std::thread::yield_now();
        };
        browser.session = format!("{}/session/{id}", browser.session);
        browser
    }

    fn try_send(&self, path: &str, body: &Value) -> Option<Value> {
        let response = self.agent.post(format!("{}{path}", self.session));
        let mut response = response.send_json(body).ok()?;
        let mut answer: Value = response.body_mut().read_json().ok()?;
        Some(answer["value"].take())
    }

    fn send(&self, path: &str, body: &Value) -> Value {
        let value = self.try_send(path, body).expect("chromedriver answers");
        assert!(value.get("error").is_none(), "{path}: {value}");
        value
    }

    pub(crate) fn open(&self, url: &str) {
        self.send("/url", &json!({ "url": url }));
    }

    /// Sets the size of the window.
    pub(crate) fn resize(&self, width: u32, height: u32) {
        self.send("/window/rect", &json!({ "width": width, "height": height }));
    }

    /// Runs a script and returns its result. The script may await.
    pub(crate) fn run(&self, script: &str) -> Value {
        let script = format!(
            "const done = arguments[arguments.length - 1]; (async () => {{ {script} }})().then(done, (error) => done(String(error)));"
        );
        self.send("/execute/async", &json!({ "script": script, "args": [] }))
    }

    /// Waits until an expression is true, for 5 s.
    pub(crate) fn wait(&self, what: &str, expression: &str) -> Duration {
        let began = Instant::now();
        while self.run(&format!("return Boolean({expression});")) != true {
            if began.elapsed() >= PATIENCE {
                let text = self.run("return document.body.innerText;");
                panic!("not within {PATIENCE:?}: {what}\n{text}");
            }
        }
        began.elapsed()
    }

    /// Types a text into a field, as a person does.
    pub(crate) fn write(&self, field: &str, text: &str) {
        let element = self.find(field);
        self.send(&format!("/element/{element}/clear"), &json!({}));
        self.send(
            &format!("/element/{element}/value"),
            &json!({ "text": text }),
        );
    }

    /// Clicks on an element, which must be visible.
    pub(crate) fn click(&self, selector: &str) {
        let element = self.find(selector);
        self.send(&format!("/element/{element}/click"), &json!({}));
    }

    fn find(&self, selector: &str) -> String {
        let found = self.send(
            "/element",
            &json!({ "using": "css selector", "value": selector }),
        );
        let mut ids = found.as_object().into_iter().flatten();
        let (_, id) = ids.next().expect("an element");
        id.as_str().expect("an id").to_owned()
    }

    /// Returns the messages of one of the browser's logs since the last call.
    pub(crate) fn log(&self, kind: &str) -> Vec<Value> {
        let log = self.send("/se/log", &json!({ "type": kind }));
        log.as_array().cloned().unwrap_or_default()
    }

    /// Sets whether the person prefers `light` or `dark`.
    pub(crate) fn prefer(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        let call =
            json!({ "cmd": "Emulation.setEmulatedMedia", "params": { "features": features } });
        self.send("/goog/cdp/execute", &call);
    }

    /// Returns a picture of the window, as PNG.
    pub(crate) fn picture(&self) -> Vec<u8> {
        let url = format!("{}/screenshot", self.session);
        let mut response = self.agent.get(url).call().expect("chromedriver answers");
        let answer: Value = response.body_mut().read_json().expect("JSON");
        decoded(answer["value"].as_str().expect("a picture"))
    }
}

/// Returns the bytes of a text in base64.
fn decoded(text: &str) -> Vec<u8> {
    const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut held, mut bits) = (Vec::new(), 0_u32, 0);
    for value in text.chars().filter_map(|digit| DIGITS.find(digit)) {
        held = (held << 6 | value as u32) & 0xff_ffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
        }
    }
    bytes
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends the browser. What fails here fails because it has ended.
        let _ = self.agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
