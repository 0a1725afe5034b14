//! Runs the peer.

fn main() -> std::process::ExitCode {
    peer_fred::main()
}
