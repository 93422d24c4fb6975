//! Which images are pulled.

/// Images of each kind.
pub(crate) const EACH: usize = 50;
/// Packages that images are combined of.
const KNOWN: usize = 40;

/// An image of each package that combinations are made of.
pub(crate) fn each_known() -> impl Iterator<Item = String> {
    (0..KNOWN).map(|number| format!("known{number}"))
}

/// Images of packages that no combination has.
pub(crate) fn each_prepared() -> impl Iterator<Item = String> {
    (0..EACH).map(|number| format!("prepared{number}"))
}

/// Images of packages that nobody has built.
pub(crate) fn each_unbuilt() -> impl Iterator<Item = String> {
    (0..EACH).map(|number| format!("unbuilt{number}"))
}

/// Numbers that look like chance and are the same each time (`xorshift64`, Marsaglia 2003).
pub(crate) struct Chance(u64);

impl Default for Chance {
    fn default() -> Self {
        Self(0x6e69_7867_6174_6531)
    }
}

impl Chance {
    /// Combinations of four to eight packages. There are far more of them than are ever asked for.
    pub(crate) fn combinations(&mut self) -> Vec<String> {
        (0..EACH).map(|_| self.combination()).collect()
    }

    fn combination(&mut self) -> String {
        let count = 4 + self.below(5);
        let packages = (0..count).map(|_| format!("known{}", self.below(KNOWN)));
        packages.collect::<Vec<_>>().join("/")
    }

    /// Four to eight of these.
    pub(crate) fn some_of(&mut self, names: &[String]) -> Vec<String> {
        let count = 4 + self.below(5);
        let names = (0..count).map(|_| names.get(self.below(names.len())).cloned());
        names.flatten().collect()
    }

    /// Puts names into an order that looks like chance.
    pub(crate) fn shuffle(&mut self, names: &mut [String]) {
        for last in (1..names.len()).rev() {
            names.swap(last, self.below(last + 1));
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or_default() % bound
    }
}
