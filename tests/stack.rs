//! The stack that nested calls of annotated functions take, and the size of their futures.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use cache_runtime::testing::RedisServer;
use cache_runtime::{Cache, Clock, Config, cache_evict, cache_put, cacheable};
use serde::{Deserialize, Serialize};
use tokio::runtime::Builder;

/// The stack of a thread of tokio or `std`.
const STACK: usize = 2 << 20;

/// The number of nested calls that must fit, and the part of the stack that one call may take.
const LEVELS: u32 = if cfg!(debug_assertions) { 250 } else { 1_300 };
const MOST_BYTES: usize = if cfg!(debug_assertions) {
    8 << 10
} else {
    3 << 9
};

/// The most bytes that an attribute may add to the future of a function.
const MOST_ADDED: usize = if cfg!(debug_assertions) { 512 } else { 384 };

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Node {
    id: u32,
    name: String,
    weight: u64,
}

impl Node {
    fn above(id: u32, child: Option<&Self>) -> Self {
        Self {
            id,
            name: format!("node {id}"),
            weight: 1 + child.map_or(0, |child| child.weight),
        }
    }
}

/// A tree in which every node has one child, down to 0.
struct Tree {
    cache: Cache,
    clock: Clock,
    /// The position of the stack in each body that ran.
    frames: Mutex<Vec<usize>>,
}

impl Tree {
    #[cacheable(key = "node:<id>", ttl = 60, grace = "10m", cache = self.cache)]
    async fn node(&self, id: u32) -> Result<Option<Node>, String> {
        self.note();
        let child = match id {
            0 => None,
            _ => Box::pin(self.node(id - 1)).await?,
        };
        Ok(Some(Node::above(id, child.as_ref())))
    }

    #[cacheable(key = "node:<id>", ttl = 60, grace = "10m", refresh = "background", cache = self.cache)]
    fn node_behind(self: Arc<Self>, id: u32) -> Pin<Box<dyn Future<Output = Node> + Send>> {
        Box::pin(async move {
            self.note();
            let child = match id {
                0 => None,
                _ => Some(Arc::clone(&self).node_behind(id - 1).await),
            };
            Node::above(id, child.as_ref())
        })
    }

    #[cache_put(key = "node:<id>", ttl = 60, cache = self.cache)]
    async fn save(&self, id: u32) -> Result<Node, String> {
        self.note();
        let child = match id {
            0 => None,
            _ => Some(Box::pin(self.save(id - 1)).await?),
        };
        Ok(Node::above(id, child.as_ref()))
    }

    #[cache_evict(key = "node:<id>", pattern = "parents:<id>:*", fence, cache = self.cache)]
    async fn remove(&self, id: u32) -> Result<u64, String> {
        self.note();
        match id {
            0 => Ok(1),
            _ => Ok(1 + Box::pin(self.remove(id - 1)).await?),
        }
    }

    fn note(&self) {
        let here = 0_u8;
        let here = std::ptr::from_ref(&here).addr();
        self.frames.lock().expect("no body panics").push(here);
    }

    /// Returns how many bodies were nested, and how much stack each of them took.
    fn measured(&self) -> (usize, usize) {
        let frames = mem::take(&mut *self.frames.lock().expect("no body panics"));
        let [first, .., last] = frames[..] else {
            return (frames.len(), 0);
        };
        (frames.len(), first.abs_diff(last) / (frames.len() - 1))
    }
}

#[derive(Clone, Copy, Debug)]
enum Kept {
    InMemory,
    InRedis,
}

/// Runs a test on a thread with the usual stack size.
fn on_a_usual_stack<F: Future<Output = ()>>(
    what: &'static str,
    kept: Kept,
    test: impl FnOnce(Arc<Tree>) -> F + Send + 'static,
) {
    let run = async move || {
        let server = RedisServer::start().expect("redis-server starts");
        let clock = Clock::default();
        let config = match kept {
            Kept::InMemory => Config::default(),
            Kept::InRedis => server.config(),
        };
        let tree = Tree {
            cache: Cache::connect(config.clock(clock.clone()))
                .await
                .expect("a valid configuration"),
            clock,
            frames: Mutex::default(),
        };
        test(Arc::new(tree)).await;
    };
    let thread = thread::Builder::new().stack_size(STACK).spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(run());
    });
    let thread = thread.expect("a thread");
    assert!(thread.join().is_ok(), "{what}, {kept:?}");
}

/// Asserts that all levels ran nested and that each took little stack. Prints the stack of a level.
fn assert_nested(tree: &Tree, what: &str, levels: u32) {
    let (count, bytes) = tree.measured();
    eprintln!("{what}: {bytes} bytes per level");
    assert_eq!(count, levels as usize, "{what}");
    assert!(
        bytes <= MOST_BYTES,
        "{what}: {bytes} bytes of stack per level; the limit is {MOST_BYTES}"
    );
}

async fn misses_and_a_hit(tree: Arc<Tree>) {
    let expected = Ok(Some(u64::from(LEVELS)));
    let weight = async || {
        let top = tree.node(LEVELS - 1).await;
        top.map(|node| node.map(|node| node.weight))
    };

    assert_eq!(weight().await, expected);
    assert_nested(&tree, "misses", LEVELS);

    assert_eq!(weight().await, expected);
    assert_eq!(tree.measured().0, 0, "the second call is a hit");

    let upper = LEVELS / 2;
    for id in upper..LEVELS {
        tree.cache.delete(&format!("node:{id}")).await;
    }
    assert_eq!(weight().await, expected);
    assert_nested(&tree, "misses above a hit", LEVELS - upper);
}

async fn stale_values(tree: Arc<Tree>) {
    let first = tree.node(LEVELS - 1).await;
    tree.measured();
    tree.clock.advance(Duration::from_secs(61));

    assert_eq!(tree.node(LEVELS - 1).await, first);
    assert_nested(&tree, "refreshes by the caller", LEVELS);
}

async fn background(tree: Arc<Tree>) {
    let first = Arc::clone(&tree).node_behind(LEVELS - 1).await;
    assert_nested(&tree, "misses before a refresh", LEVELS);
    tree.clock.advance(Duration::from_secs(61));

    assert_eq!(Arc::clone(&tree).node_behind(LEVELS - 1).await, first);
    let refreshed = async {
        while tree.frames.lock().expect("no body panics").is_empty() {
            tokio::task::yield_now().await;
        }
    };
    let refreshed = tokio::time::timeout(Duration::from_secs(10), refreshed).await;
    assert!(refreshed.is_ok(), "a task refreshes the stale value");
}

async fn puts(tree: Arc<Tree>) {
    let top = tree.save(LEVELS - 1).await;

    assert_eq!(top.map(|node| node.weight), Ok(u64::from(LEVELS)));
    assert_nested(&tree, "puts", LEVELS);
}

async fn evictions(tree: Arc<Tree>) {
    assert_eq!(tree.remove(LEVELS - 1).await, Ok(u64::from(LEVELS)));

    assert_nested(&tree, "evictions", LEVELS);
}

#[test]
fn loads_nest_in_memory() {
    on_a_usual_stack("misses", Kept::InMemory, misses_and_a_hit);
}

#[test]
fn loads_nest_with_redis() {
    on_a_usual_stack("misses", Kept::InRedis, misses_and_a_hit);
}

#[test]
fn refreshes_nest_in_memory() {
    on_a_usual_stack("refreshes", Kept::InMemory, stale_values);
}

#[test]
fn refreshes_nest_with_redis() {
    on_a_usual_stack("refreshes", Kept::InRedis, stale_values);
}

#[test]
fn loads_of_a_function_with_background_refresh_nest_in_memory() {
    on_a_usual_stack("background", Kept::InMemory, background);
}

#[test]
fn loads_of_a_function_with_background_refresh_nest_with_redis() {
    on_a_usual_stack("background", Kept::InRedis, background);
}

#[test]
fn puts_nest_in_memory() {
    on_a_usual_stack("puts", Kept::InMemory, puts);
}

#[test]
fn puts_nest_with_redis() {
    on_a_usual_stack("puts", Kept::InRedis, puts);
}

#[test]
fn evictions_nest_in_memory() {
    on_a_usual_stack("evictions", Kept::InMemory, evictions);
}

#[test]
fn evictions_nest_with_redis() {
    on_a_usual_stack("evictions", Kept::InRedis, evictions);
}

/// The body of all functions whose futures are compared.
async fn row(id: u64) -> Result<Node, String> {
    let space = [id; 16];
    tokio::task::yield_now().await;
    Err(format!("{space:?}"))
}

#[cacheable(key = "row:<id>", ttl = 60)]
async fn cached(id: u64) -> Result<Node, String> {
    row(id).await
}

#[cacheable(key = "row:<id>", ttl = 60, grace = 60, refresh = "background")]
async fn refreshed(id: u64) -> Result<Node, String> {
    row(id).await
}

#[cache_put(key = "row:<id>", ttl = 60)]
async fn put(id: u64) -> Result<Node, String> {
    row(id).await
}

#[cache_evict(key = "row:<id>", pattern = "rows:*")]
async fn evict(id: u64) -> Result<Node, String> {
    row(id).await
}

async fn plain(id: u64) -> Result<Node, String> {
    row(id).await
}

#[test]
fn an_attribute_adds_little_to_the_future_of_its_function() {
    let plain = mem::size_of_val(&plain(1));
    let sizes = [
        ("cacheable", mem::size_of_val(&cached(1))),
        ("background", mem::size_of_val(&refreshed(1))),
        ("put", mem::size_of_val(&put(1))),
        ("evict", mem::size_of_val(&evict(1))),
    ];

    for (attribute, size) in sizes {
        let added = size - plain;
        eprintln!("{attribute}: {size} bytes, {added} more than the function ({plain})");
        assert!(
            added <= MOST_ADDED,
            "{attribute} adds {added} bytes to a future of {plain} bytes; the limit is {MOST_ADDED}"
        );
    }
}
