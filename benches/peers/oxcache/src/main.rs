//! Runs the peer.

fn main() -> std::process::ExitCode {
    peer_oxcache::main()
}
