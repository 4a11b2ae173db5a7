//! What the commits of a seed change, beside what a person changes every day: names, owners, the inventory.

use super::super::{
    rng::Rng,
    site::{Sketch, SketchNode},
};

/// See the module.
pub(super) struct Commits {
    /// Nodes that are declared no more, as they were.
    left: Vec<SketchNode>,
    last_name: usize,
}

impl Commits {
    pub(super) fn new(first: &Sketch) -> Self {
        Self { left: Vec::new(), last_name: first.nodes.len() }
    }

    /// The next commit's sketch.
    pub(super) fn next(&mut self, before: &Sketch, rng: &mut Rng) -> Sketch {
        let mut sketch = if rng.chance(75) { before.changed(rng) } else { before.touched() };
        for _ in 0..rng.below(4) {
            self.change(&mut sketch, rng);
        }
        sketch
    }

    fn change(&mut self, sketch: &mut Sketch, rng: &mut Rng) {
        let name = rng.pick(&sketch.nodes).name.clone();
        match rng.below(13) {
            0 | 1 => sketch.rename_task(rng),
            2 => sketch.move_task(rng),
            3 => sketch.rename_service(rng),
            4 => sketch.exchange(rng),
            5 | 6 if sketch.nodes.len() > 2 => {
                self.left.extend(sketch.nodes.iter().find(|node| node.name == name).cloned());
                sketch.remove_node(&name);
            }
            7 | 8 if !self.left.is_empty() => {
                let node = self.left.swap_remove(rng.below(self.left.len()));
                sketch.restore_node(node);
            }
            9 => {
                sketch.add_node(&format!("n{}", self.last_name), rng);
                self.last_name += 1;
            }
            _ => {
                let state = *rng.pick(&[None, Some("parked"), Some("parked"), Some("decommissioned")]);
                if let Some(node) = sketch.node_mut(&name) {
                    node.state = state;
                }
            }
        }
    }
}
