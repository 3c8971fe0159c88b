//! The `ringway` binary: the command line in, an exit code out.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    ringway::lifecycle::end_process_on_panic();
    ringway::cli::run(std::env::args_os(), std::env::vars_os().collect()).into()
}
