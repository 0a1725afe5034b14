use std::os::unix::net::UnixStream;
use std::panic;

use super::*;

fn ask(server: &RedisServer, command: &[&str]) -> redis::RedisResult<Option<String>> {
    let mut connection = server.connection()?;
    redis::cmd(command[0])
        .arg(&command[1..])
        .query(&mut connection)
}

fn process_exists(process: u32) -> bool {
    let script = format!("kill -0 {process} 2>/dev/null");
    Command::new("sh")
        .args(["-c", &script])
        .status()
        .unwrap()
        .success()
}

#[test]
fn a_server_keeps_its_data_until_it_is_flushed() {
    for server in [RedisServer::start().unwrap(), RedisServer::tcp().unwrap()] {
        ask(&server, &["SET", "a", "1"]).unwrap();
        assert_eq!(ask(&server, &["GET", "a"]).unwrap().as_deref(), Some("1"));

        server.flush().unwrap();

        assert_eq!(ask(&server, &["GET", "a"]).unwrap(), None);
    }
}

#[test]
fn a_killed_server_refuses_connections_and_returns_empty_at_the_same_address() {
    for mut server in [RedisServer::start().unwrap(), RedisServer::tcp().unwrap()] {
        ask(&server, &["SET", "a", "1"]).unwrap();
        let address = server.address().clone();

        server.kill();
        let error = ask(&server, &["PING"]).unwrap_err();
        assert!(error.is_connection_refusal(), "{error}");

        server.restart().unwrap();
        assert_eq!(server.address(), &address);
        assert_eq!(ask(&server, &["GET", "a"]).unwrap(), None);
    }
}

#[test]
fn a_persistent_server_keeps_its_data_across_a_restart() {
    let mut server = RedisServer::builder()
        .args(["--appendonly", "yes", "--appendfsync", "always"])
        .start()
        .unwrap();
    ask(&server, &["SET", "a", "1"]).unwrap();

    server.restart().unwrap();
    assert_eq!(ask(&server, &["GET", "a"]).unwrap().as_deref(), Some("1"));

    server.restart_empty().unwrap();
    assert_eq!(ask(&server, &["GET", "a"]).unwrap(), None);
}

#[test]
fn a_frozen_server_accepts_connections_and_answers_after_resume() {
    use std::io::{Read, Write};
    let server = RedisServer::start().unwrap();
    let Address::Unix(path) = server.address() else {
        panic!("not a socket: {:?}", server.address())
    };

    server.stop().unwrap();
    let mut stream = UnixStream::connect(path).unwrap();
    stream.write_all(b"PING\r\n").unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let mut answer = [0; 7];
    assert_eq!(
        stream.read(&mut answer).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );

    server.resume().unwrap();
    stream.set_read_timeout(Some(START_LIMIT)).unwrap();
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+PONG\r\n");
}

#[test]
fn a_password_and_arguments_reach_the_server() {
    for builder in [RedisServer::builder(), RedisServer::builder().tcp()] {
        let server = builder
            .password("p@ss w/ord?")
            .args(["--maxmemory", "7mb"])
            .start()
            .unwrap();

        let config: Vec<String> = redis::cmd("CONFIG")
            .arg(&["GET", "maxmemory"])
            .query(&mut server.connection().unwrap())
            .unwrap();
        assert_eq!(config, ["maxmemory", &(7 << 20).to_string()]);

        let open = Endpoint {
            password: None,
            ..server.endpoint.clone()
        };
        let mut stranger = redis::Client::open(open.url())
            .unwrap()
            .get_connection()
            .unwrap();
        let error = redis::cmd("PING").exec(&mut stranger).unwrap_err();
        assert_eq!(error.code(), Some("NOAUTH"), "{error}");
    }
}

#[test]
fn a_panic_stops_the_server_and_removes_its_directory() {
    let server = RedisServer::start().unwrap();
    let (process, directory) = (
        server.process.as_ref().unwrap().id(),
        server.directory.path.clone(),
    );
    assert!(process_exists(process) && directory.exists());

    let panicked = panic::catch_unwind(panic::AssertUnwindSafe(move || {
        let _server = server;
        panic::resume_unwind(Box::new("a failed assertion"));
    }));

    assert!(panicked.is_err());
    assert!(!process_exists(process), "the process still runs");
    assert!(!directory.exists(), "the directory still exists");
}

#[test]
fn a_server_that_cannot_start_reports_the_reason() {
    let error = RedisServer::builder()
        .args(["--port", "notaport"])
        .start()
        .unwrap_err()
        .to_string();
    assert!(error.contains("notaport"), "{error}");

    let missing = not_started("redis-server", &Error::from(ErrorKind::NotFound)).to_string();
    assert!(
        missing.contains("apt-get install redis-server"),
        "{missing}"
    );
}

#[test]
fn a_port_taken_by_another_server_is_noticed() {
    let first = RedisServer::tcp().unwrap();
    let directory = Directory::new().unwrap();
    let mut second = RedisServer {
        directory,
        arguments: Vec::new(),
        endpoint: first.endpoint.clone(),
        process: None,
    };

    let error = second.launch().unwrap_err();

    assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}");
}
