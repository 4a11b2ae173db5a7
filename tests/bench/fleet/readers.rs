//! How long the planner's readers wait: `status`, `why` and `history`, asked in turn by one client while something is measured.
//!
//! Answers are read and not parsed: parsing them is the client's affair.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use groundplan_tests::simulated::site;
use serde_json::Value;

use crate::table::millis;

/// How long a reader rests after an answer.
const EVERY: Duration = Duration::from_millis(50);

/// Milliseconds of each answer, by query.
pub(super) type Samples = Vec<(&'static str, Vec<f64>)>;

/// See the module.
pub(super) struct Readers {
    socket: PathBuf,
    measuring: Arc<AtomicBool>,
    stopped: Arc<AtomicBool>,
    samples: Arc<Mutex<Samples>>,
    thread: JoinHandle<()>,
}

impl Readers {
    pub(super) fn new(socket: &Path) -> Self {
        let (measuring, stopped) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let why = format!("/v1/why?node={}&task=s.t1", site::name(0));
        let queries = [("status", "/v1/status".to_owned()), ("why", why), ("history", "/v1/history".to_owned())];
        let samples: Arc<Mutex<Samples>> =
            Arc::new(Mutex::new(queries.iter().map(|(n, _)| (*n, Vec::new())).collect()));
        let shared = (socket.to_owned(), measuring.clone(), stopped.clone(), samples.clone());
        let thread = thread::spawn(move || {
            let (socket, measuring, stopped, samples) = shared;
            for (i, (_, path)) in queries.iter().enumerate().cycle() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                thread::sleep(EVERY);
                if !measuring.load(Ordering::Relaxed) {
                    continue;
                }
                let began = Instant::now();
                // A planner that is being started again answers no request.
                if get(&socket, path).is_some() {
                    let took = millis(began.elapsed());
                    samples.lock().unwrap_or_else(PoisonError::into_inner)[i].1.push(took);
                }
            }
        });
        Self { socket: socket.to_owned(), measuring, stopped, samples, thread }
    }

    pub(super) fn begin(&self) {
        self.measuring.store(true, Ordering::Relaxed);
    }

    /// What was measured since [`Self::begin`].
    pub(super) fn end(&self) -> Samples {
        self.measuring.store(false, Ordering::Relaxed);
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.iter_mut().map(|(query, samples)| (*query, std::mem::take(samples))).collect()
    }

    pub(super) fn stop(self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.thread.join().expect("the readers' thread");
    }

    /// Waits until the planner has a state of so many nodes.
    ///
    /// # Panics
    /// If it has not in time.
    pub(super) fn wait_until_known(&self, nodes: usize, patience: Duration) {
        let began = Instant::now();
        loop {
            let status = get(&self.socket, "/v1/status").and_then(|body| serde_json::from_slice::<Value>(&body).ok());
            let all =
                status.as_ref().and_then(|status| status["nodes"].as_array()).map(Vec::as_slice).unwrap_or_default();
            let known = all.iter().filter(|node| !node["phase"].is_null()).count();
            if known >= nodes {
                return;
            }
            assert!(began.elapsed() < patience, "the planner knows {known} of {nodes} nodes");
            thread::sleep(EVERY);
        }
    }
}

/// The body of the planner's answer.
fn get(socket: &Path, path: &str) -> Option<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: planner\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let head = answer.windows(4).position(|end| end == b"\r\n\r\n")?;
    answer.starts_with(b"HTTP/1.1 200").then(|| answer.split_off(head + 4))
}
