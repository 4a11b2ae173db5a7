//! What the benchmarks print: rows of figure, baseline, ratio and target; and statistics over samples.

use std::time::Duration;

use serde_json::json;

/// One figure.
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// The figure, in `unit`.
    pub(crate) value: f64,
    /// Its unit: `ms`, `s`, `MiB`, `MB`.
    pub(crate) unit: &'static str,
    /// What it is compared with, measured in the same run, in the same unit.
    pub(crate) baseline: Option<(String, f64)>,
    /// The design's target, in words, and whether it is met.
    pub(crate) target: Option<(String, bool)>,
}

impl Row {
    /// A figure without baseline or target.
    pub(crate) fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { what: what.into(), value, unit, baseline: None, target: None }
    }

    /// Compared with something measured in the same run.
    #[must_use]
    pub(crate) fn against(mut self, what: impl Into<String>, value: f64) -> Self {
        self.baseline = Some((what.into(), value));
        self
    }

    /// To be at most `limit`, in the row's unit.
    #[must_use]
    pub(crate) fn at_most(mut self, limit: f64) -> Self {
        self.target = Some((format!("≤ {limit} {}", self.unit), self.value <= limit));
        self
    }

    /// To be at most `limit` times its baseline.
    #[must_use]
    pub(crate) fn at_most_times(mut self, limit: f64) -> Self {
        let met = self.ratio().is_some_and(|ratio| ratio <= limit);
        self.target = Some((format!("≤ {limit} × baseline"), met));
        self
    }

    fn ratio(&self) -> Option<f64> {
        self.baseline.as_ref().map(|(_, value)| self.value / value)
    }
}

/// All figures of a run.
#[derive(Default)]
pub(crate) struct Table {
    /// In the order measured.
    pub(crate) rows: Vec<Row>,
}

impl Table {
    /// For people.
    pub(crate) fn text(&self) -> String {
        let width = self.rows.iter().map(|r| r.what.chars().count()).max().unwrap_or(0);
        let mut out = String::new();
        for row in &self.rows {
            out.push_str(&format!("{:<width$}  {:>10.3} {:<3}", row.what, row.value, row.unit));
            if let (Some((what, value)), Some(ratio)) = (&row.baseline, row.ratio()) {
                out.push_str(&format!("  {ratio:>6.2} × {what} ({value:.3} {})", row.unit));
            }
            if let Some((target, met)) = &row.target {
                out.push_str(&format!("  target {target}: {}", if *met { "met" } else { "NOT MET" }));
            }
            out.push('\n');
        }
        out
    }

    /// For programs.
    pub(crate) fn json(&self) -> String {
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|row| {
                json!({
                    "what": row.what, "value": row.value, "unit": row.unit, "ratio": row.ratio(),
                    "baseline": row.baseline.as_ref().map(|(what, value)| json!({ "what": what, "value": value })),
                    "target": row.target.as_ref().map(|(what, met)| json!({ "what": what, "met": met })),
                })
            })
            .collect();
        format!("{:#}\n", json!({ "version": 1, "rows": rows }))
    }
}

/// Milliseconds of a duration.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// The value below which `share` of the samples lie.
///
/// # Panics
/// If there are no samples.
pub(crate) fn quantile(samples: &mut [f64], share: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[((samples.len() - 1) as f64 * share).round() as usize]
}
