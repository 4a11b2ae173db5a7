//! The program: reads its settings and runs the agent. See `--help`.

use std::{process::ExitCode, time::SystemTime};

use groundplan_agent::{
    clock,
    config::{Args, Command, Config, HELP},
    freshness, log,
    shell::{Shell, StopSignals},
};

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args_os().skip(1)) {
        Ok(args) => args,
        Err(e) => return fail(2, &e),
    };
    match args.command {
        Command::Help => print!("{HELP}"),
        Command::Version => println!("groundplan-agent {}", env!("CARGO_PKG_VERSION")),
        Command::PrintKey => match Config::public_key(&args) {
            Ok(key) => println!("{key}"),
            Err(e) => return fail(2, &e),
        },
        Command::Check => match Config::heard(&args) {
            Ok((state_dir, silence)) => {
                match freshness::check(&state_dir, silence, clock::wall_ms(SystemTime::now())) {
                    Ok(text) => println!("{text}"),
                    Err(text) => {
                        println!("{text}");
                        return ExitCode::from(1);
                    }
                }
            }
            Err(e) => return fail(2, &e),
        },
        Command::Run => {
            let config = match Config::load(&args) {
                Ok(config) => config,
                Err(e) => return fail(2, &e),
            };
            return run(config, args.exit_with_parent);
        }
    }
    ExitCode::SUCCESS
}

fn run(config: Config, exit_with_parent: bool) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return fail(1, &e),
    };
    let ended = runtime.block_on(async {
        let stop_signals = match StopSignals::listen(exit_with_parent) {
            Ok(stop_signals) => stop_signals,
            Err(e) => return fail(2, &e),
        };
        let ended = match Shell::open(config, stop_signals).await {
            Ok(shell) => shell.run().await,
            Err(e) => Err(e),
        };
        ended.map_or_else(|e| fail(1, &e), |()| ExitCode::SUCCESS)
    });
    // What is left, such as a name being resolved, is not waited for.
    runtime.shutdown_background();
    ended
}

fn fail(code: u8, error: &dyn std::error::Error) -> ExitCode {
    log::error(log::chain(error));
    ExitCode::from(code)
}
