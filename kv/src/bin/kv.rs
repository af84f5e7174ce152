//! A kv server.

fn main() {
    std::process::exit(kv::command::main(std::env::args_os()))
}
