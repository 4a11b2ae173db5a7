//! How much rendering may take: steps and output of one template, and of all together.
//!
//! Shared by everything that one resolution renders. In: the site's limit. Out: the engine's budget, a writer that stops at the limit, and
//! the messages of both. The engine charges a step for each instruction and for 64 bytes of what it makes, so that steps bound memory too.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

/// How many steps one template may take, beside those for its output.
const STEPS: u64 = 5_000_000;

/// How many steps all templates of a resolution may take together, and how many bytes they may render to.
const ALL_STEPS: u64 = 4_000_000_000;
const ALL_BYTES: u64 = 4 << 30;

/// How much is written after the limit before that is an error by itself. Until then it is one at the next expression, which has a place.
const SLACK: u64 = 64 << 10;

/// The limits of one resolution, and what of them is used. Clones share the latter.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Bytes that one template may render to.
    output: u64,
    steps: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
    /// Whether the template that is rendered is past its limit.
    full: Arc<AtomicBool>,
}

impl Limits {
    /// Limits for a resolution in which one template may render to `output` bytes.
    pub(crate) fn new(output: u64) -> Self {
        Self { output, steps: Arc::default(), bytes: Arc::default(), full: Arc::default() }
    }

    /// The steps of one template. Its output is charged twice where a macro or a block makes it.
    pub(super) fn steps(&self) -> u64 {
        STEPS + self.output / 16
    }

    /// What one template has used.
    pub(super) fn used(&self, steps: u64, bytes: u64) {
        self.steps.fetch_add(steps, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    /// Whether all templates together have used up what they may.
    pub(super) fn are_used_up(&self) -> bool {
        self.steps.load(Relaxed) > ALL_STEPS || self.bytes.load(Relaxed) > ALL_BYTES
    }

    /// Whether the template that is rendered is past its limit.
    pub(super) fn is_full(&self) -> bool {
        self.full.load(Relaxed)
    }

    /// A writer for the next template.
    pub(super) fn writer(&self) -> Writer<'_> {
        self.full.store(false, Relaxed);
        Writer { limits: self, text: Vec::new(), past: 0, last: 0 }
    }

    /// Renders a text that another template needs while it is rendered: the text, if it is within the limit of one template, and what
    /// `render` returns.
    pub(super) fn within<T>(&self, render: impl FnOnce(&mut Writer<'_>) -> T) -> (Option<String>, T) {
        let outer = self.is_full();
        let mut writer = self.writer();
        let result = render(&mut writer);
        let full = self.full.swap(outer, Relaxed);
        ((!full).then(|| writer.into_text()), result)
    }

    /// Message and hint for a template that takes too many steps.
    pub(super) fn too_many_steps(&self) -> (String, String) {
        let message = "rendering this takes too many steps; it may never end".to_owned();
        (
            message,
            format!(
                "one template may take {} million steps: loop over less, or within fewer loops",
                self.steps() / 1_000_000
            ),
        )
    }

    /// Message and hint for a template whose output is too long.
    pub(super) fn too_long(&self) -> (String, String) {
        let message = format!("the template renders to more than {} MiB", self.output >> 20);
        (message, "ship long files as they are, with `file`, or raise `max_rendered_mib` in site.toml".to_owned())
    }

    /// Message and hint once all templates together have used up what they may.
    pub(super) fn too_much() -> (String, String) {
        let message = "the templates of this commit together take too many steps, or render to too much".to_owned();
        (message, "have them loop over less, and ship long files as they are, with `file`".to_owned())
    }
}

/// Takes the output of one template up to its limit.
pub(super) struct Writer<'l> {
    limits: &'l Limits,
    text: Vec<u8>,
    /// Bytes after the limit, which are dropped.
    past: u64,
    /// Address of what was written last: where text of a template is written as it is, that is its place in the template.
    last: usize,
}

impl Writer<'_> {
    /// What was written.
    pub(super) fn into_text(self) -> String {
        // It was written as strings, each as a whole.
        String::from_utf8(self.text).unwrap_or_default()
    }

    /// How much was written.
    pub(super) fn len(&self) -> u64 {
        self.text.len() as u64
    }

    /// Where in `source` the text begins that was written last, if it was written as it is.
    pub(super) fn last_in(&self, source: &str) -> Option<usize> {
        let at = self.last.checked_sub(source.as_ptr() as usize)?;
        (at < source.len() && source.is_char_boundary(at)).then_some(at)
    }
}

impl io::Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.last = bytes.as_ptr() as usize;
        let length = bytes.len() as u64;
        if self.past == 0 && self.len() + length <= self.limits.output {
            self.text.extend_from_slice(bytes);
        } else {
            self.limits.full.store(true, Relaxed);
            self.past += length;
        }
        if self.past > SLACK { Err(io::Error::other("past the limit")) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
