//! Slow clients, silent clients, and too many clients. Each has its own raw connection.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::{Service, credentials, eventually};

/// Short, so that the tests are fast.
const SHORT: &[(&str, &str)] = &[
    ("HEAD_TIMEOUT", "300ms"),
    ("BODY_TIMEOUT", "300ms"),
    ("WRITE_TIMEOUT", "300ms"),
];

/// Longer than any of these timeouts, but shorter than the defaults.
const PATIENCE: Duration = Duration::from_secs(8);

const HALF_A_BODY: &str = "POST /api/auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                           content-length: 60000\r\n\r\n{\"username\"";

#[test]
fn a_client_that_sends_nothing_or_half_a_head_is_disconnected() {
    let service = Service::with(SHORT);

    for sent in [
        "",
        "GET /api/events HT",
        "GET /api/events HTTP/1.1\r\nhost: x\r\nx-half",
    ] {
        let mut client = connect(&service);
        client
            .write_all(sent.as_bytes())
            .expect("an open connection");

        let answer = rest_of(client);

        assert_eq!(answer, "", "{sent:?}");
    }
}

#[test]
fn a_client_that_sends_a_head_byte_by_byte_is_disconnected() {
    let service = Service::with(SHORT);
    let mut client = connect(&service);
    let began = Instant::now();

    while client.write_all(b"G").is_ok() {
        assert!(began.elapsed() < PATIENCE, "the connection is still open");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_idle_connection_is_closed() {
    let service = Service::with(SHORT);
    let mut client = connect(&service);
    get(&mut client, "/api/events/1");
    let (status, _) = answer(&mut BufReader::new(client.try_clone().expect("a clone")));
    assert_eq!(status, 200);

    assert_eq!(rest_of(client), "");
}

#[test]
fn half_a_body_gets_408_and_closes_the_connection() {
    let service = Service::with(SHORT);
    let mut client = connect(&service);

    client
        .write_all(HALF_A_BODY.as_bytes())
        .expect("an open connection");
    let answer = rest_of(client);

    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("application/problem+json"), "{answer}");
}

#[test]
fn the_rest_of_an_unread_body_is_not_awaited() {
    let service = Service::start();
    let mut client = connect(&service);
    // Without a session the body does not matter.
    let request = HALF_A_BODY.replace("/api/auth/login", "/api/payments");

    client
        .write_all(request.as_bytes())
        .expect("an open connection");
    let answer = rest_of(client);

    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
}

#[test]
fn a_body_that_arrives_byte_by_byte_is_not_awaited() {
    let service = Service::with(SHORT);
    let mut client = connect(&service);
    let began = Instant::now();

    client
        .write_all(HALF_A_BODY.as_bytes())
        .expect("an open connection");
    while client.write_all(b" ").is_ok() {
        assert!(began.elapsed() < PATIENCE, "the connection is still open");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_client_that_does_not_read_responses_is_disconnected() {
    let service = Service::with(SHORT);
    let mut client = connect(&service);
    let request = "GET /api/events HTTP/1.1\r\nhost: x\r\n\r\n".repeat(100);
    client.set_write_timeout(Some(PATIENCE)).expect("a timeout");

    // More than all buffers on the way can hold.
    let began = Instant::now();
    let error = loop {
        if let Err(error) = client.write_all(request.as_bytes()) {
            break error;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "the server still accepts requests"
        );
    };

    let timed_out = [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind());
    assert!(!timed_out, "the connection is still open: {error}");
}

#[test]
fn a_body_that_is_too_long_is_refused_before_it_arrives() {
    let service = Service::start();

    for length in ["65537", "1000000000", "18446744073709551613"] {
        let mut client = connect(&service);
        let head = format!(
            "POST /api/auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        client
            .write_all(head.as_bytes())
            .expect("an open connection");

        let answer = rest_of(client);

        assert!(answer.starts_with("HTTP/1.1 413 "), "{length}: {answer}");
        assert!(answer.contains("connection: close"), "{answer}");
    }
}

#[test]
fn a_head_that_is_too_long_is_refused() {
    let service = Service::start();
    let mut client = connect(&service);
    let head = format!(
        "GET /api/events HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n",
        "x".repeat(400_000)
    );

    // The server may refuse it before everything is sent.
    let _ = client.write_all(head.as_bytes());
    let answer = rest_of(client);

    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431 "),
        "{answer}"
    );
    assert_eq!(service.get("/api/health").status, 200);
}

#[test]
fn connections_beyond_the_limit_get_the_health_or_503() {
    let service = Service::with(&[("MAX_CONNECTIONS", "8")]);
    // More than the limit plus the reserve.
    let crowd: Vec<_> = (0..60).map(|_| connect(&service)).collect();

    let (health, other) = (service.get("/api/health"), service.get("/api/events/1"));

    assert_eq!(health.status, 200);
    assert_eq!((other.status, &*other.header("retry-after")), (503, "1"));
    assert_eq!(other.content_type, "application/problem+json");
    assert_eq!(other.header("connection"), "close");
    eventually("a line in the log", || {
        service.has_said("too many connections")
    });
    // Not one line per connection.
    assert!(service.times_said("too many connections") < 3);
    drop(crowd);
    eventually("room", || service.get("/api/events/1").status == 200);
}

#[test]
fn one_address_cannot_take_all_connections() {
    let variables = [
        ("MAX_CONNECTIONS_PER_ADDRESS", "4"),
        ("TRUSTED_PROXIES", "192.0.2.1"),
    ];
    let service = Service::with(&variables);
    let _crowd: Vec<_> = (0..30).map(|_| connect(&service)).collect();

    assert_eq!(service.get("/api/events/1").status, 503);
    assert_eq!(service.get("/api/health").status, 200);
    eventually("the reason", || {
        service.has_said("MAX_CONNECTIONS_PER_ADDRESS")
    });
}

#[test]
fn a_proxy_may_have_the_connections_of_all_its_clients() {
    let variables = [
        ("MAX_CONNECTIONS_PER_ADDRESS", "4"),
        ("TRUSTED_PROXIES", "127.0.0.1"),
    ];
    let service = Service::with(&variables);

    let _crowd: Vec<_> = (0..30).map(|_| connect(&service)).collect();

    assert_eq!(service.get("/api/events/1").status, 200);
}

#[cfg(target_os = "linux")]
#[test]
fn silent_clients_do_not_block_the_health_if_files_are_few() {
    let service = Service::with_files(200, &[]);
    let _crowd: Vec<_> = (0..260).map(|_| connect(&service)).collect();

    for _ in 0..10 {
        assert_eq!(service.get("/api/health").status, 200);
    }
    assert!(!service.has_said("cannot accept connections"));
}

#[test]
fn sigterm_does_not_wait_for_clients_without_a_request() {
    let mut service = Service::start();
    let mut silent: Vec<_> = (0..5).map(|_| connect(&service)).collect();
    for client in &mut silent[..3] {
        client
            .write_all(b"GET /api/ev")
            .expect("an open connection");
    }
    assert_eq!(service.get("/api/events/1").status, 200);

    let began = Instant::now();
    service.terminate();
    let (status, _) = service.wait();

    assert!(status.success());
    // The timeout for a head is 10 s.
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
}

#[test]
fn requests_on_one_connection_are_answered_in_order() {
    let service = Service::start();
    let mut client = connect(&service);
    let body = credentials(1);
    let login = format!(
        "POST /api/auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );

    get(&mut client, "/api/events/1");
    client
        .write_all(login.as_bytes())
        .expect("an open connection");
    get(&mut client, "/no/such/route");

    let mut answers = BufReader::new(client);
    let statuses = [(); 3].map(|()| answer(&mut answers).0);
    assert_eq!(statuses, [200, 200, 404]);
}

pub(crate) fn connect(service: &Service) -> TcpStream {
    let client = TcpStream::connect(&service.address).expect("it listens");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    client
}

pub(crate) fn get(client: &mut TcpStream, path: &str) {
    let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    client
        .write_all(head.as_bytes())
        .expect("an open connection");
}

/// Returns the status and the body of the next response.
pub(crate) fn answer(answers: &mut impl BufRead) -> (u16, String) {
    let mut line = String::new();
    answers.read_line(&mut line).expect("a status");
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let mut length = 0;
    while line != "\r\n" {
        line.clear();
        assert_ne!(answers.read_line(&mut line).expect("a header"), 0);
        let header = line.to_ascii_lowercase();
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
    }
    let mut body = vec![0; length];
    answers.read_exact(&mut body).expect("a body");
    (
        status.expect("a code"),
        String::from_utf8(body).expect("UTF-8"),
    )
}

/// Returns everything until the connection ends.
fn rest_of(mut client: TcpStream) -> String {
    let mut rest = Vec::new();
    if let Err(error) = client.read_to_end(&mut rest) {
        let is_over = error.kind() == ErrorKind::ConnectionReset;
        assert!(is_over, "the connection is still open: {error}");
    }
    String::from_utf8(rest).expect("UTF-8")
}
