//! A controller server.

fn main() {
    std::process::exit(ctrler::command::main(std::env::args_os()))
}
