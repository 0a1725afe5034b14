//! Runs the peer.

fn main() -> std::process::ExitCode {
    peer_quick_cache::main()
}
