//! Runs the peer.

fn main() -> std::process::ExitCode {
    peer_multi_tier_cache::main()
}
