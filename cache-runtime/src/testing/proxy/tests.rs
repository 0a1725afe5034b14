use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);
/// Longer than an answer on the same machine takes: after this time no answer is coming.
const SILENCE: Duration = Duration::from_millis(50);

struct Client(TcpStream);

impl Client {
    fn connect(proxy: &FaultProxy) -> io::Result<Self> {
        let Address::Tcp(host, port) = proxy.address() else {
            panic!("not a port: {:?}", proxy.address())
        };
        Ok(Self(TcpStream::connect((host.as_str(), *port))?))
    }

    fn send(&mut self) {
        self.0.write_all(b"PING\r\n").unwrap();
    }

    /// The kind of the error is `UnexpectedEof` or `ConnectionReset` if the connection is closed, and `WouldBlock` if it is silent.
    fn answer(&mut self, within: Duration) -> Result<(), ErrorKind> {
        let mut answer = [0; 7];
        self.0.set_read_timeout(Some(within)).unwrap();
        self.0
            .read_exact(&mut answer)
            .map_err(|error| error.kind())?;
        assert_eq!(&answer, b"+PONG\r\n");
        Ok(())
    }

    fn ping(&mut self) -> Result<(), ErrorKind> {
        self.send();
        self.answer(PATIENCE)
    }
}

#[test]
fn bytes_are_forwarded_and_counted() {
    for server in [RedisServer::start().unwrap(), RedisServer::tcp().unwrap()] {
        let proxy = FaultProxy::start(&server).unwrap();

        for _ in 0..2 {
            let mut client = Client::connect(&proxy).unwrap();
            client.ping().unwrap();
        }

        assert_eq!(proxy.connections(), 2);
        assert_eq!(proxy.bytes_to_server(), 2 * b"PING\r\n".len() as u64);
        assert_eq!(proxy.bytes_to_client(), 2 * b"+PONG\r\n".len() as u64);
    }
}

#[test]
fn a_stall_keeps_connections_open_and_silent_until_it_ends() {
    let server = RedisServer::start().unwrap();
    let proxy = FaultProxy::start(&server).unwrap();
    let mut early = Client::connect(&proxy).unwrap();
    early.ping().unwrap();

    proxy.stall();
    let mut late = Client::connect(&proxy).unwrap();
    early.send();
    late.send();
    assert_eq!(early.answer(SILENCE), Err(ErrorKind::WouldBlock));
    assert_eq!(late.answer(SILENCE), Err(ErrorKind::WouldBlock));

    proxy.pass();
    early.answer(PATIENCE).unwrap();
    late.answer(PATIENCE).unwrap();
}

#[test]
fn a_cut_closes_and_refuses_connections_until_it_ends() {
    let server = RedisServer::start().unwrap();
    let proxy = FaultProxy::start(&server).unwrap();
    let mut client = Client::connect(&proxy).unwrap();
    client.ping().unwrap();

    proxy.cut();
    assert!(matches!(
        client.answer(PATIENCE),
        Err(ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset)
    ));
    let refused = Client::connect(&proxy).map(|_| ()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);

    proxy.pass();
    Client::connect(&proxy).unwrap().ping().unwrap();
}

#[test]
fn a_delay_holds_back_each_answer_and_ends_immediately() {
    let by = Duration::from_millis(40);
    let server = RedisServer::start().unwrap();
    let proxy = FaultProxy::start(&server).unwrap();
    let mut client = Client::connect(&proxy).unwrap();

    proxy.delay(by);
    let start = Instant::now();
    client.ping().unwrap();
    assert!(
        start.elapsed() >= by,
        "answered after {:?}",
        start.elapsed()
    );

    proxy.delay(10 * PATIENCE);
    client.send();
    assert_eq!(client.answer(SILENCE), Err(ErrorKind::WouldBlock));
    proxy.pass();
    client.answer(PATIENCE).unwrap();
}

#[test]
fn a_half_open_connection_reaches_the_server_and_never_answers_again() {
    let server = RedisServer::start().unwrap();
    let proxy = FaultProxy::start(&server).unwrap();
    let mut client = Client::connect(&proxy).unwrap();
    client.ping().unwrap();
    let (requests, answers) = (proxy.bytes_to_server(), proxy.bytes_to_client());

    proxy.half_open();
    client.send();
    assert_eq!(client.answer(SILENCE), Err(ErrorKind::WouldBlock));
    assert!(proxy.bytes_to_server() > requests);

    proxy.pass();
    client.send();
    assert_eq!(client.answer(SILENCE), Err(ErrorKind::WouldBlock));
    assert_eq!(proxy.bytes_to_client(), answers);
    Client::connect(&proxy).unwrap().ping().unwrap();
}

#[test]
fn a_stopped_server_closes_its_clients() {
    let mut server = RedisServer::start().unwrap();
    let proxy = FaultProxy::start(&server).unwrap();
    let mut client = Client::connect(&proxy).unwrap();
    client.ping().unwrap();

    server.kill();

    assert!(
        client
            .answer(PATIENCE)
            .is_err_and(|kind| kind != ErrorKind::WouldBlock)
    );
    let mut next = Client::connect(&proxy).unwrap();
    assert!(
        next.answer(PATIENCE)
            .is_err_and(|kind| kind != ErrorKind::WouldBlock)
    );
}

#[tokio::test]
async fn servers_and_proxies_work_inside_a_runtime() {
    let mut server = RedisServer::tcp().unwrap();
    let proxy = FaultProxy::start(&server).unwrap();
    let client = redis::Client::open(proxy.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();

    proxy.delay(Duration::from_millis(1));
    let answer: String = redis::cmd("PING")
        .query_async(&mut connection)
        .await
        .unwrap();

    assert_eq!(answer, "PONG");
    server.restart().unwrap();
    drop((proxy, server));
}

#[test]
fn a_dropped_proxy_closes_its_port() {
    let server = RedisServer::start().unwrap();
    let proxy = FaultProxy::start(&server).unwrap();
    let Address::Tcp(host, port) = proxy.address().clone() else {
        panic!("not a port")
    };

    drop(proxy);

    let refused = TcpStream::connect((host.as_str(), port)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}
