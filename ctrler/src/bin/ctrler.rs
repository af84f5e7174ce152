//! A controller server.

/// A third less processor time per write than with the system's allocator, and about half of the memory
/// kept after load.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    std::process::exit(ctrler::command::main(std::env::args_os()))
}
