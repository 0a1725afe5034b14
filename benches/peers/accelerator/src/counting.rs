//! Runs the peer, and counts its allocations, which takes time of its own.

peer::count_allocations!();

fn main() -> std::process::ExitCode {
    peer_accelerator::main()
}
