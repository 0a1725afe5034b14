//! The seam between the path of a call, which is compiled once, and the annotated function, whose types only the compiler knows.
//!
//! A future is `Send` if everything that it holds is `Send`, so the path must not hold the function. Otherwise every
//! annotated function would have to be `Send`. The path leaves a request and waits. The shell around it holds the
//! function and handles the request while it is polled.

use std::cell::RefCell;
use std::future::{self, Future};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::chain::{self, Chain};
use super::lent::{Lent, swap};
use super::local::{Kept, KeptValue};
use super::pulse::{Pulse, Watch};
use crate::entry::{
    self, Draft, Entry, Json, Layers, Limits, Origin, Refusal, Tagged, Unreadable, Value,
};
use crate::key::Key;
use crate::site::Ttl;
use crate::tag::{Tag, TagWriter};
use crate::target::Target;

/// The caller as the path sees it: an annotated function, or a method of the handle. A path requests only what its caller
/// has.
pub(super) trait Caller {
    /// Decodes a value and keeps it. The code of its type may panic.
    fn decode(&mut self, _json: &Json) -> Result<(), Unreadable> {
        Err(Unreadable::OtherShape)
    }

    /// Keeps a remembered `None`. Returns whether it may be the answer. The code of its type may panic.
    fn decode_none(&mut self) -> bool {
        false
    }

    /// Returns the value that was decoded last, to be kept in this process. The code of its type may panic.
    fn keep(&self) -> Option<KeptValue> {
        None
    }

    /// Takes a value that is kept in this process. Returns whether it is of its type. The code of its type may panic.
    fn take(&mut self, _kept: &Kept) -> bool {
        false
    }

    /// Polls the body and keeps its result. Returns whether the result is not an `Err`.
    fn poll_body(&mut self, _cx: &mut Context<'_>) -> Poll<bool> {
        Poll::Ready(false)
    }

    /// Returns whether the body's result is worth storing.
    fn appraise(&self) -> Appraisal {
        Appraisal::Failed
    }

    /// Adds the tags that the value in the result names. A `None` names none.
    fn tags(&self, _tags: &mut TagWriter) {}

    /// Returns the entry of the value in the result.
    fn write(&self, _job: &WriteJob) -> Option<Written> {
        None
    }

    /// Returns the targets that an eviction names with the returned value.
    fn named(&mut self) -> Vec<Target> {
        Vec::new()
    }

    /// Moves the body into its own task, which runs this path.
    fn detach(&mut self, _path: Path) {}
}

/// Where the answer of a call comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// From an entry.
    Entry,
    /// From the body.
    Body,
}

/// What to do with the value that a body returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Appraisal {
    /// It is an `Err`.
    Failed,
    /// `unless` rejected it, so it is not stored.
    Skipped {
        is_none: bool,
    },
    /// A value, and its TTL if the attribute sets one for it.
    Value(Option<Ttl>),
    None,
}

/// The outcome of writing an entry.
pub(super) type Written = Result<Entry, Refusal>;

/// The parts of an entry except its value.
pub(super) struct WriteJob {
    pub(super) key: Key,
    pub(super) origin: Origin,
    pub(super) layers: Layers,
    pub(super) now: u64,
    pub(super) ttl: Duration,
    pub(super) cost: Duration,
    pub(super) limits: Limits,
    pub(super) tags: Vec<Tagged>,
}

impl WriteJob {
    /// The entry of a value.
    pub(super) fn write(&self, value: &dyn Value) -> Written {
        entry::value(&self.draft(), value, &self.limits)
    }

    /// The entry that remembers a `None`.
    pub(super) fn none(&self) -> Entry {
        entry::none(&self.draft())
    }

    fn draft(&self) -> Draft<'_> {
        Draft {
            key: &self.key,
            origin: self.origin,
            layers: self.layers,
            now: self.now,
            fresh: self.ttl,
            cost: self.cost,
            tags: &self.tags,
        }
    }
}

/// Decodes a value and leaves it with the caller, whose type must not take the call down.
pub(super) fn decode_with(caller: &mut dyn Caller, json: &Json) -> Result<(), Unreadable> {
    json.decode_by(|json| caller.decode(json))
}

/// Leaves a `None` with the caller. Returns whether its function may return one.
pub(super) fn decode_none_with(caller: &mut dyn Caller) -> bool {
    entry::caught(|| caller.decode_none()).unwrap_or(false)
}

/// Where a request and its answer are stored.
#[derive(Default)]
enum Slot {
    #[default]
    Empty,
    Asked(Request),
    /// The body runs, as the innermost of these loads if it is a load.
    Running(Option<Arc<Chain>>),
    Answered(Reply),
}

enum Request {
    Decode(Json),
    DecodeNone,
    Run(Option<Arc<Chain>>),
    Appraise,
    Tags(TagWriter),
    Write(Box<WriteJob>),
    Named,
    Detach(Path),
    Watch(Arc<Pulse>),
}

enum Reply {
    Decoded(Result<(), Unreadable>, Json),
    Returned(bool),
    Appraised(Appraisal),
    Tagged(TagWriter),
    Written(Option<Written>),
    Named(Vec<Target>),
    Done,
}

thread_local! {
    /// The slot of the path that is being polled.
    static SLOT: RefCell<Slot> = const { RefCell::new(Slot::Empty) };
}

/// Decodes a value and leaves it with the caller.
pub(super) async fn decode(json: Json) -> (Result<(), Unreadable>, Json) {
    ask(Request::Decode(json), |reply| match reply {
        Reply::Decoded(decoded, json) => Some((decoded, json)),
        _ => None,
    })
    .await
}

/// Leaves a `None` with the caller. Returns whether its function may return one.
pub(super) async fn decode_none() -> bool {
    ask(Request::DecodeNone, returned).await
}

/// Runs the body, as the innermost of these loads if it is a load. Returns whether it succeeded.
pub(super) async fn run_body(chain: Option<Arc<Chain>>) -> bool {
    ask(Request::Run(chain), returned).await
}

/// Stops polling the body.
pub(super) fn stop_body() {
    replace(Slot::Empty);
}

/// Returns whether the body's result is worth storing.
pub(super) async fn appraise() -> Appraisal {
    ask(Request::Appraise, |reply| match reply {
        Reply::Appraised(appraisal) => Some(appraisal),
        _ => None,
    })
    .await
}

/// Returns the tags that the value that the body returned names, for a cache with this prefix.
pub(super) async fn tags(prefix: &str) -> Vec<Tag> {
    ask(Request::Tags(TagWriter::new(prefix)), |reply| match reply {
        Reply::Tagged(tags) => Some(tags.into_tags()),
        _ => None,
    })
    .await
}

/// Returns the entry of the value that the body returned; [`None`] if it returned no value.
pub(super) async fn write(job: WriteJob) -> Option<Written> {
    ask(Request::Write(Box::new(job)), |reply| match reply {
        Reply::Written(entry) => Some(entry),
        _ => None,
    })
    .await
}

/// Returns the targets that an eviction names with the value that the body returned.
pub(super) async fn named() -> Vec<Target> {
    ask(Request::Named, |reply| match reply {
        Reply::Named(targets) => Some(targets),
        _ => None,
    })
    .await
}

/// Moves the body into its own task, which runs this path.
pub(super) async fn detach(path: Path) {
    ask(Request::Detach(path), done).await;
}

/// Tells `pulse` from now on whether the call is polled.
pub(super) async fn watch(pulse: Arc<Pulse>) {
    ask(Request::Watch(pulse), done).await;
}

fn returned(reply: Reply) -> Option<bool> {
    match reply {
        Reply::Returned(is_ok) => Some(is_ok),
        _ => None,
    }
}

fn done(reply: Reply) -> Option<()> {
    matches!(reply, Reply::Done).then_some(())
}

async fn ask<T>(request: Request, answer: impl Fn(Reply) -> Option<T>) -> T {
    let mut request = Some(request);
    future::poll_fn(|_| {
        if let Some(request) = request.take() {
            replace(Slot::Asked(request));
            return Poll::Pending;
        }
        match replace(Slot::Empty) {
            Slot::Answered(reply) => answer(reply).map_or(Poll::Pending, Poll::Ready),
            other => {
                replace(other);
                Poll::Pending
            }
        }
    })
    .await
}

fn replace(mut slot: Slot) -> Slot {
    swap(&SLOT, &mut slot);
    slot
}

/// Boxes the path of a call, so the future of an annotated function holds only a pointer.
pub(crate) type Path = Pin<Box<dyn Future<Output = Source> + Send>>;

/// Drives the path of a call: polls it, and handles its requests.
///
/// A trait object, like [`Path`]: the future of an annotated function holds only a pointer, and its debug information does not
/// describe the types of the requests.
pub(crate) struct Driver(Box<dyn Drive + Send>);

impl Driver {
    pub(super) fn new(path: Path) -> Self {
        Self(Box::new(Driven {
            path,
            slot: Slot::Empty,
            watch: None,
        }))
    }

    /// Runs until it has to wait.
    pub(super) fn poll(&mut self, caller: &mut dyn Caller, cx: &mut Context<'_>) -> Poll<Source> {
        self.0.poll(caller, cx)
    }
}

trait Drive {
    fn poll(&mut self, caller: &mut dyn Caller, cx: &mut Context<'_>) -> Poll<Source>;
}

/// The path of a call, and what its driver knows.
struct Driven {
    path: Path,
    slot: Slot,
    watch: Option<Watch>,
}

impl Drive for Driven {
    fn poll(&mut self, caller: &mut dyn Caller, cx: &mut Context<'_>) -> Poll<Source> {
        loop {
            let Self { path, slot, watch } = self;
            let waker = watch
                .as_ref()
                .map_or(cx.waker(), |watch| watch.begin(cx.waker()));
            let own = &mut Context::from_waker(waker);
            // Polled first, so a result that is in time is not treated as late.
            poll_body(slot, caller, own);
            let polled = poll_path(path, slot, own);
            if let Some(watch) = watch {
                watch.end();
            }
            if polled.is_ready() || !self.answer(caller) {
                return polled;
            }
        }
    }
}

impl Driven {
    /// Handles the request of the path. Returns whether there was one.
    #[inline(never)]
    fn answer(&mut self, caller: &mut dyn Caller) -> bool {
        let request = match mem::take(&mut self.slot) {
            Slot::Asked(request) => request,
            other => {
                self.slot = other;
                return false;
            }
        };
        self.slot = Slot::Answered(match request {
            Request::Decode(json) => Reply::Decoded(decode_with(caller, &json), json),
            Request::DecodeNone => Reply::Returned(decode_none_with(caller)),
            Request::Appraise => Reply::Appraised(caller.appraise()),
            Request::Tags(mut tags) => {
                caller.tags(&mut tags);
                Reply::Tagged(tags)
            }
            Request::Write(job) => Reply::Written(caller.write(&job)),
            Request::Named => Reply::Named(caller.named()),
            Request::Detach(path) => {
                caller.detach(path);
                Reply::Done
            }
            Request::Watch(pulse) => {
                self.watch = Some(Watch::new(pulse));
                Reply::Done
            }
            Request::Run(chain) => {
                self.slot = Slot::Running(chain);
                return true;
            }
        });
        true
    }
}

/// A separate function, like the other parts: its stack space is free again while a body runs, and calls may nest.
#[inline(never)]
fn poll_path(path: &mut Path, slot: &mut Slot, cx: &mut Context<'_>) -> Poll<Source> {
    let _lent = Lent::new(&SLOT, slot);
    path.as_mut().poll(cx)
}

fn poll_body(slot: &mut Slot, caller: &mut dyn Caller, cx: &mut Context<'_>) {
    let polled = match slot {
        Slot::Running(None) => caller.poll_body(cx),
        Slot::Running(chain) => {
            let _entered = chain::enter(chain);
            caller.poll_body(cx)
        }
        _ => return,
    };
    if let Poll::Ready(is_ok) = polled {
        set_returned(slot, is_ok);
    }
}

#[inline(never)]
fn set_returned(slot: &mut Slot, is_ok: bool) {
    *slot = Slot::Answered(Reply::Returned(is_ok));
}
