//! Signals to stop: SIGTERM, SIGINT, or the end of the process that started the agent.

use std::{io, os::fd::AsFd as _};

use tokio::{
    io::AsyncReadExt as _,
    net::unix::pipe,
    signal::unix::{Signal, SignalKind, signal},
};

/// Waits for whatever asks the agent to stop.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    parent: Option<pipe::Receiver>,
}

impl StopSignals {
    /// Listens to SIGTERM and SIGINT, and with `parent` to the end of standard input, which must be a pipe then.
    pub fn listen(parent: bool) -> io::Result<Self> {
        let parent = match parent {
            true => Some(pipe::Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?),
            false => None,
        };
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())?, parent })
    }

    /// Returns when the next signal comes.
    pub async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            () = closed(&mut self.parent) => {}
        }
    }
}

/// Returns once when the pipe is closed; never if there is none.
async fn closed(parent: &mut Option<pipe::Receiver>) {
    let Some(pipe) = parent else { return std::future::pending().await };
    let mut buffer = [0; 64];
    while let Ok(1..) = pipe.read(&mut buffer).await {}
    *parent = None;
}
