//! nixgate with a listener of its own in a company's Envoy, whose configuration is delivered: nobody else
//! notices, whatever is wrong with nixgate, and the registry works as anywhere.

mod guide;
mod harmless;
mod registry;
