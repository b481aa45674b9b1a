//! The `ochre` program.

fn main() -> std::process::ExitCode {
    ochre_cli::main(&ochre_server::Extensions::built_in())
}
