//! A sorted map by stream.

/// Values by stream, in a sorted vector. Hosts number streams in order, so a new one goes to the end; to
/// remove one moves at most some 100 kB. A `BTreeMap` for each kind of value would add a tenth to the
/// filter's module.
pub(super) struct ByStream<S, T>(Vec<(S, T)>);

impl<S, T> Default for ByStream<S, T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<S: Copy + Ord, T> ByStream<S, T> {
    fn position(&self, stream: S) -> Result<usize, usize> {
        self.0.binary_search_by_key(&stream, |(known, _)| *known)
    }

    /// Adds a stream, unless it is present.
    pub(super) fn insert(&mut self, stream: S, value: T) {
        if let Err(position) = self.position(stream) {
            self.0.insert(position, (stream, value));
        }
    }

    pub(super) fn remove(&mut self, stream: S) -> Option<T> {
        let position = self.position(stream).ok()?;
        Some(self.0.remove(position).1)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|(_, value)| value)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().map(|(_, value)| value)
    }

    /// Splits by a predicate.
    pub(super) fn partition(self, is_first: impl Fn(&T) -> bool) -> (Self, Self) {
        let (first, second) = self.0.into_iter().partition(|(_, value)| is_first(value));
        (Self(first), Self(second))
    }

    /// In reverse order, for [`Vec::pop`].
    pub(super) fn into_reversed(mut self) -> Vec<(S, T)> {
        self.0.reverse();
        self.0
    }
}
