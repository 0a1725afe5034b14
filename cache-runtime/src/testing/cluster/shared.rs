//! One cluster for all tests of a process.

use std::io;
use std::process::{Child, Command, Stdio};

use super::Cluster;
use crate::sync::Mutex;

/// Waits until this process ends in any way, which closes its input. Then it ends the servers, and removes their directories.
const CLEAN_UP: &str = r#"cat >/dev/null
while [ $# -gt 0 ]; do
    kill -KILL "$1"
    rm -rf "$2"
    shift 2
done"#;

struct Shared {
    cluster: &'static Cluster,
    _cleaner: Child,
}

static SHARED: Mutex<Option<Shared>> = Mutex::new(None);

impl Cluster {
    /// Returns a cluster that all tests of this process share, because a start takes seconds. It ends with the process. A test should
    /// use a prefix of its own, or remove the keys of the test before it.
    ///
    /// # Errors
    ///
    /// The same as [`ClusterBuilder::start`](super::ClusterBuilder::start). The next call tries again.
    pub fn shared() -> io::Result<&'static Self> {
        let mut shared = SHARED.lock();
        if let Some(Shared { cluster, .. }) = &*shared {
            return Ok(cluster);
        }
        let cluster = Self::start()?;
        let mut cleaner = Command::new("sh");
        cleaner.args(["-c", CLEAN_UP, "sh"]);
        for node in &cluster.nodes {
            if let Some(process) = node.server.process() {
                cleaner
                    .arg(process.to_string())
                    .arg(node.server.directory());
            }
        }
        let _cleaner = cleaner
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let cluster = Box::leak(Box::new(cluster));
        *shared = Some(Shared { cluster, _cleaner });
        Ok(cluster)
    }
}
