//! The `fracas` binary; what it does is in the library.

fn main() -> std::process::ExitCode {
    fracas::main()
}
