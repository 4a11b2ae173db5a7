//! What sources of an edge do to thousands of targets, each of which must not go through all of them.
//!
//! In: where a removed task is removed, and which nodes are parked. Out: whether it acts on a vertex, at the cost of a search; and what acts
//! on some vertex but not on all, as one set.

use crate::{
    desired::{NodeIx, Scope},
    diff::Diff,
    hand_over::HandOvers,
};

/// Where a removed task is removed: on the nodes on which it does not change hands as a whole. There it is not removed, and fires nothing:
/// its heir fires what is declared on the heir.
pub(super) struct Going {
    /// On nodes that are not parked, ascending.
    there: Vec<NodeIx>,
    /// On parked nodes, ascending.
    pub(super) parked: Vec<NodeIx>,
    /// See [`Diff::has_moved`]: then it acts on its own node alone.
    has_moved: bool,
}

/// Whether a removed task acts on a vertex.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Acts {
    Not,
    /// Only on nodes that are parked and another one than the vertex's.
    Away,
    /// Some instance that the vertex waits for.
    There,
}

impl Going {
    pub(super) fn new(diff: &Diff<'_>, hand_overs: &HandOvers, removed: usize) -> Self {
        let nodes = diff.removed[removed].instances.iter().map(|(node, _)| *node);
        let goes = nodes.filter(|node| !hand_overs.is_whole(removed as u32, *node));
        let (parked, there) = goes.partition(|node| diff.is_parked(*node));
        Self { there, parked, has_moved: diff.has_moved(removed) }
    }

    /// The scope of an edge from there.
    pub(super) fn scope(&self, scope: Scope) -> Scope {
        match scope {
            Scope::AllNodes if self.has_moved => Scope::SameNode,
            scope => scope,
        }
    }

    /// Whether it acts on a vertex on the node `at`, by an edge of that scope.
    pub(super) fn acts(&self, diff: &Diff<'_>, scope: Scope, at: NodeIx) -> Acts {
        let goes = |node: &NodeIx| self.there.binary_search(node).is_ok() || self.parked.binary_search(node).is_ok();
        match self.scope(scope) {
            Scope::SameNode if goes(&at) => Acts::There,
            Scope::OneNode(only) if !goes(&only) || self.has_moved && only != at => Acts::Not,
            Scope::OneNode(only) if diff.is_waited_for(only, at) => Acts::There,
            Scope::OneNode(_) => Acts::Away,
            Scope::AllNodes if !self.there.is_empty() || goes(&at) => Acts::There,
            Scope::AllNodes if !self.parked.is_empty() => Acts::Away,
            Scope::SameNode | Scope::AllNodes => Acts::Not,
        }
    }
}

/// What all of a set are to others, and each of it to all others but itself: the union of "all but one of them", for any number of times,
/// without going through the set each time.
pub(super) struct Others<T> {
    /// The one that was left out, if that is the same each time; none, once, if nothing was.
    left_out: Option<Option<T>>,
    all: bool,
}

impl<T: Copy + PartialEq> Others<T> {
    pub(super) fn new() -> Self {
        Self { left_out: None, all: false }
    }

    /// Adds all of the set but this one.
    pub(super) fn all_but(&mut self, one: Option<T>) {
        let before = *self.left_out.get_or_insert(one);
        self.all |= one.is_none() || before != one;
    }

    /// What was added; `set` is the set.
    pub(super) fn of(self, set: &[T]) -> impl Iterator<Item = T> {
        let left_out = self.left_out.flatten().filter(|_| !self.all);
        let any = self.left_out.is_some();
        set.iter().copied().filter(move |item| any && Some(*item) != left_out)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// All that is added for these targets, one after the other.
    fn union(set: &[u8], left_out: &[Option<u8>]) -> (BTreeSet<u8>, BTreeSet<u8>) {
        let mut others = Others::new();
        left_out.iter().for_each(|one| others.all_but(*one));
        let all = left_out.iter().flat_map(|one| set.iter().copied().filter(move |item| Some(*item) != *one));
        (others.of(set).collect(), all.collect())
    }

    #[test]
    fn all_but_one_of_a_set_for_any_number_of_times() {
        let set = [1, 2, 3];
        let one = [None, Some(1), Some(2), Some(3)];
        let mut cases = vec![Vec::new()];
        for _ in 0..3 {
            let longer = cases.iter().flat_map(|case| one.map(|one| case.iter().copied().chain([one]).collect()));
            let longer: Vec<Vec<_>> = longer.collect();
            cases.extend(longer);
        }
        for case in cases {
            let (found, expected) = union(&set, &case);
            assert_eq!(found, expected, "{case:?}");
        }
    }
}
