//! The requests of many users, and what they notice.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::service::Service;

const EVENTS: usize = 1_000;
const USERS: usize = 200;
/// Users who change their profiles, follow others and change their events.
const WRITERS: usize = 10;
/// Until everything that is asked for often is cached.
const WARM_UP: Duration = Duration::from_secs(2);
/// How many connections are opened at the same time.
const OPENED_AT_ONCE: usize = 128;

/// Which requests there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix {
    /// How many of 100 requests change something.
    pub(crate) writes: u32,
    /// How long a connection pauses between two requests, on average.
    pub(crate) pause: Duration,
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Zipf-distributed reads (of 99: 60 events, 15 profiles, 10 followers, 9 lists, 5 analytics), {} % writes (of 10: 7 \
             profiles, 2 followers, 1 event, which evicts all lists), pauses of {:?}",
            self.writes, self.pause
        )
    }
}

/// Ranks with probabilities as 1, 1/2, 1/3, …
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(ranks: usize) -> Self {
        let mut sum = 0.0;
        Self(
            (1..=ranks)
                .map(|rank| {
                    sum += 1.0 / rank as f64;
                    sum
                })
                .collect(),
        )
    }

    /// From 1 on.
    fn draw(&self, rng: &mut Rng) -> usize {
        let at = rng.f64() * self.0.last().copied().unwrap_or_default();
        1 + self.0.partition_point(|sum| *sum < at)
    }
}

/// What all connections know.
struct Plan {
    events: Zipf,
    users: Zipf,
    /// The cookies of the first users.
    cookies: Vec<String>,
    host: String,
    mix: Mix,
    is_measuring: AtomicBool,
    is_over: AtomicBool,
}

impl Plan {
    fn request(&self, rng: &mut Rng) -> Result<Request<Full<Bytes>>> {
        let (event, user) = (self.events.draw(rng), self.users.draw(rng));
        if rng.u32(0..100) < self.mix.writes {
            return self.write(rng);
        }
        let path = match rng.u32(1..100) {
            1..61 => format!("/api/events/{event}"),
            61..76 => format!("/api/users/{user}"),
            76..86 => format!("/api/users/{user}/followers"),
            86..90 => format!("/api/events?page={}", rng.u32(1..=3)),
            90..93 => "/api/events/trending".to_owned(),
            93..95 => format!("/api/users/{user}/events"),
            _ => format!("/api/events/{event}/analytics"),
        };
        Ok(Request::get(path)
            .header(header::HOST, &self.host)
            .body(Full::default())?)
    }

    fn write(&self, rng: &mut Rng) -> Result<Request<Full<Bytes>>> {
        let writer = rng.usize(0..self.cookies.len());
        let user = writer + 1;
        let (method, path, body) = match rng.u32(0..10) {
            0..7 => (
                Method::PUT,
                format!("/api/users/{user}"),
                format!(r#"{{"bio": "I like number {}."}}"#, rng.u32(..)),
            ),
            7..9 => (
                Method::POST,
                format!(
                    "/api/users/{}/followers/{user}",
                    11 + rng.usize(0..USERS - 11)
                ),
                String::new(),
            ),
            _ => return self.change_event(rng),
        };
        self.as_user(writer, method, &path, body)
    }

    /// Every twentieth event is the first user's.
    fn change_event(&self, rng: &mut Rng) -> Result<Request<Full<Bytes>>> {
        let path = format!("/api/events/{}", 20 * rng.u32(1..=5));
        let body = format!(r#"{{"price_cents": {}}}"#, rng.u32(1_000..9_000));
        self.as_user(0, Method::PUT, &path, body)
    }

    fn as_user(
        &self,
        writer: usize,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<Request<Full<Bytes>>> {
        Ok(Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.host)
            .header(header::COOKIE, &self.cookies[writer])
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(body))?)
    }
}

/// What the cache counted.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct Counts {
    #[serde(rename = "gets")]
    pub(crate) reads: u64,
    pub(crate) hits: u64,
    #[serde(rename = "loads")]
    pub(crate) bodies: u64,
    pub(crate) timeouts: u64,
}

impl Counts {
    fn since(self, before: Self) -> Self {
        Self {
            reads: self.reads - before.reads,
            hits: self.hits - before.hits,
            bodies: self.bodies - before.bodies,
            timeouts: self.timeouts - before.timeouts,
        }
    }
}

/// One round of one service.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Response times in microseconds, in order.
    times: Vec<u32>,
    lasted: Duration,
    pub(crate) counts: Counts,
    /// Responses that said that there is too much to do.
    pub(crate) shed: u64,
    /// Responses of any other kind that were not asked for.
    pub(crate) failed: u64,
    pub(crate) log_lines: u64,
}

impl Measured {
    pub(crate) fn rate(&self) -> f64 {
        self.times.len() as f64 / self.lasted.as_secs_f64()
    }

    /// How long the requests took of which `share` were faster.
    pub(crate) fn millis(&self, share: f64) -> f64 {
        let index = (share * self.times.len() as f64) as usize;
        self.times
            .get(index)
            .map_or(f64::NAN, |micros| f64::from(*micros) / 1_000.0)
    }
}

/// What one connection saw.
#[derive(Default)]
struct Seen {
    times: Vec<u32>,
    shed: u64,
    failed: u64,
}

/// How many users there are, and for how long.
pub(crate) struct Traffic {
    pub(crate) connections: usize,
    pub(crate) lasts: Duration,
    pub(crate) mix: Mix,
}

impl Traffic {
    /// Asks on a new connection: the service closes one that is idle for long.
    async fn counts(service: &Service) -> Result<Counts> {
        Connection::open(service).await?.counts().await
    }

    pub(crate) async fn drive(&self, service: &Service) -> Result<Measured> {
        let plan = Arc::new(Plan {
            events: Zipf::new(EVENTS),
            users: Zipf::new(USERS),
            cookies: Connection::open(service).await?.log_in_all().await?,
            host: service.address.to_string(),
            mix: self.mix,
            is_measuring: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        });
        let mut users = JoinSet::new();
        let opening = Arc::new(Semaphore::new(OPENED_AT_ONCE));
        for seed in 0..self.connections {
            let permit = Arc::clone(&opening).acquire_owned().await?;
            let (plan, address) = (Arc::clone(&plan), service.address);
            users.spawn(async move {
                let connection = Connection::open_at(address).await;
                drop(permit);
                connection?.work(&plan, Rng::with_seed(seed as u64)).await
            });
        }
        sleep(WARM_UP).await;
        let (before, lines) = (Self::counts(service).await?, service.log_lines());
        plan.is_measuring.store(true, Ordering::Relaxed);
        let start = Instant::now();
        sleep(self.lasts).await;
        plan.is_measuring.store(false, Ordering::Relaxed);
        let lasted = start.elapsed();
        let counts = Self::counts(service).await?.since(before);
        let log_lines = service.log_lines() - lines;
        plan.is_over.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        while let Some(seen) = users.join_next().await {
            let seen = seen??;
            all.times.extend(seen.times);
            all.shed += seen.shed;
            all.failed += seen.failed;
        }
        all.times.sort_unstable();
        Ok(Measured {
            times: all.times,
            lasted,
            counts,
            shed: all.shed,
            failed: all.failed,
            log_lines,
        })
    }
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    async fn open(service: &Service) -> Result<Self> {
        Self::open_at(service.address).await
    }

    async fn open_at(address: std::net::SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    async fn ask(&mut self, request: Request<Full<Bytes>>) -> Result<(Response<()>, Bytes)> {
        self.sender.ready().await?;
        let (head, body) = self.sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok((Response::from_parts(head, ()), body))
    }

    /// Asks until everything is over.
    async fn work(mut self, plan: &Plan, mut rng: Rng) -> Result<Seen> {
        let mut seen = Seen::default();
        while !plan.is_over.load(Ordering::Relaxed) {
            if !plan.mix.pause.is_zero() {
                // From none to twice the average.
                sleep(plan.mix.pause.mul_f64(2.0 * rng.f64())).await;
            }
            let request = plan.request(&mut rng)?;
            let began = Instant::now();
            let (response, _) = self.ask(request).await?;
            if !plan.is_measuring.load(Ordering::Relaxed) {
                continue;
            }
            match response.status() {
                status if status.is_success() => {
                    let micros = began.elapsed().as_micros();
                    seen.times.push(u32::try_from(micros).unwrap_or(u32::MAX));
                }
                StatusCode::SERVICE_UNAVAILABLE => seen.shed += 1,
                _ => seen.failed += 1,
            }
        }
        Ok(seen)
    }

    async fn log_in_all(&mut self) -> Result<Vec<String>> {
        let mut cookies = Vec::new();
        for user in 1..=WRITERS {
            let credentials =
                format!(r#"{{"username": "user{user}", "password": "password{user}"}}"#);
            let request = Request::post("/api/auth/login")
                .header(header::HOST, "localhost")
                .header(header::CONTENT_TYPE, "application/json")
                .body(Full::from(credentials))?;
            let (response, body) = self.ask(request).await?;
            ensure!(
                response.status().is_success(),
                "user{user} cannot log in: {} {}",
                response.status(),
                String::from_utf8_lossy(&body)
            );
            let session = response.headers().get_all(header::SET_COOKIE);
            let pairs = session
                .iter()
                .filter_map(|cookie| cookie.to_str().ok()?.split(';').next());
            cookies.push(pairs.collect::<Vec<_>>().join("; "));
        }
        Ok(cookies)
    }

    async fn counts(&mut self) -> Result<Counts> {
        #[derive(Deserialize)]
        struct Stats {
            total: Counts,
        }
        let request = Request::get("/api/cache/stats")
            .header(header::HOST, "localhost")
            .body(Full::default())?;
        let (response, body) = self.ask(request).await?;
        ensure!(
            response.status().is_success(),
            "no statistics: {}",
            response.status()
        );
        let stats: Stats = serde_json::from_slice(&body).context("the statistics")?;
        Ok(stats.total)
    }
}
