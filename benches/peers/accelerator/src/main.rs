//! Runs the peer.

fn main() -> std::process::ExitCode {
    peer_accelerator::main()
}
