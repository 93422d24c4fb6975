//! A proxy-wasm host on wasmtime, in which the filter runs as it does in Envoy.
//!
//! ```text
//!   Host ── World: shared data, queues, clock          (what all Envoy workers share)
//!     ├── vm 0 ── root contexts ── streams             (a worker: one VM, one thread)
//!     └── vm 1 ── …
//! ```
//!
//! It behaves as Envoy was observed to, where the filter could rely on the opposite:
//!
//! - A local reply is sent, and its stream ended, after the callback: from one list of the VM, with which the
//!   end of *every* callback continues. So the replies nest, and a VM with too many at once dies
//!   ([`STACK`]). The same holds for a continued request, which may fail at once.
//! - A message in a queue wakes the root that registered the queue, in a separate callback.
//! - A context that has ended can't become the effective one (`BadArgument`).
//! - The response to a callout is lost when the context that sent it has ended.
//! - The first insertion of a key into shared data succeeds despite compare-and-swap.
//! - An empty buffer is a null pointer.
//! - A callback that the module does not export is not called.
//! - A root's timer runs with the clock.
//!
//! Tests are written in terms of requests, callouts and answers, so that the filter's internals can change.
//! They count host calls only where the number matters, since each costs Envoy a microsecond. A trap in the
//! VM fails the test with its backtrace.

mod abi;
mod header_map;
mod module;
mod state;
mod wasi;

use std::cell::RefCell;
use std::rc::Rc;

use wasmtime::{Instance, Linker, Store, WasmParams, WasmResults};

pub use module::{bytes as module_bytes, exports as module_exports, imports as module_imports};
pub use state::{Callout, Headers, LogLine, Outcome, Reply, Response};

use state::{State, World};

/// A root context: one configuration of the filter in one VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    vm: usize,
    context: u32,
}

/// One HTTP request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    vm: usize,
    context: u32,
}

/// The start time of every [`Host`].
pub const START: u64 = 1_700_000_000;

/// A VM with more nested actions dies. Envoy's limit is 310 if the filter is alone in the chain, and less
/// otherwise.
const STACK: usize = 64;

struct Vm {
    store: Store<State>,
    instance: Instance,
    next_context: u32,
}

/// A host with any number of VMs.
pub struct Host {
    world: Rc<RefCell<World>>,
    environment: Vec<(String, String)>,
    /// The name of the plugin.
    plugin: String,
    vms: Vec<Vm>,
}

impl Host {
    /// A host whose VMs see these environment variables.
    pub fn new(environment: &[(&str, &str)]) -> Self {
        let environment = environment.iter();
        Self {
            world: Rc::new(RefCell::new(World::new(START))),
            environment: environment
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            plugin: String::new(),
            vms: Vec::new(),
        }
    }

    /// Names the plugin of all later configurations; it has no name at first.
    pub fn name_plugin(&mut self, name: &str) {
        name.clone_into(&mut self.plugin);
    }

    /// Starts another VM, as for one more worker, and configures a root context in it.
    pub fn start(&mut self, configuration: &str) -> Root {
        let (engine, module) = module::compiled();
        let state = State::new(Rc::clone(&self.world), self.vms.len(), &self.environment);
        let mut store = Store::new(engine, state);
        let mut linker = Linker::new(engine);
        abi::define(&mut linker).expect("the functions of the ABI have distinct names");
        wasi::define(&mut linker).expect("the functions of WASI have distinct names");
        linker
            .define_unknown_imports_as_traps(module)
            .expect("imports are functions");
        let instance = linker
            .instantiate(&mut store, module)
            .expect("the module can be instantiated");
        self.vms.push(Vm {
            store,
            instance,
            next_context: 1,
        });
        let vm = self.vms.len() - 1;
        let () = self.call(vm, 0, "_initialize", ());
        self.reconfigure(vm, configuration)
    }

    /// Gives the VM of a root a further root context, as Envoy does when a listener is updated.
    /// The older one stays.
    pub fn update(&mut self, root: Root, configuration: &str) -> Root {
        self.reconfigure(root.vm, configuration)
    }

    fn reconfigure(&mut self, vm: usize, configuration: &str) -> Root {
        let context = self.new_context(vm, 0);
        let size = u32::try_from(configuration.len()).expect("a short configuration");
        let plugin = self.plugin.clone().into_bytes();
        let state = self.state(vm);
        state.configuration = configuration.as_bytes().to_vec();
        state.attributes.insert("plugin_name".to_owned(), plugin);
        let started: u32 = self.call(vm, context, "proxy_on_vm_start", (context, 0_u32));
        assert_eq!(started, 1, "the VM starts whatever its configuration");
        let configured: u32 = self.call(vm, context, "proxy_on_configure", (context, size));
        assert_eq!(configured, 1, "the filter takes any configuration");
        Root { vm, context }
    }

    fn new_context(&mut self, vm: usize, parent: u32) -> u32 {
        let context = self.vms[vm].next_context;
        self.vms[vm].next_context += 1;
        self.state(vm).contexts.insert(context);
        self.call_back(vm, context, "proxy_on_context_create", (context, parent));
        context
    }

    /// Sends a request with these headers, pseudo-headers included.
    pub fn request(&mut self, root: Root, headers: &[(&str, &str)]) -> Stream {
        let headers = headers.iter();
        let headers = headers
            .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
            .collect();
        self.request_bytes(root, headers)
    }

    /// Sends a request with headers whose values may be any bytes.
    pub fn request_bytes(&mut self, root: Root, headers: Headers) -> Stream {
        let vm = root.vm;
        let context = self.new_context(vm, root.context);
        let count = u32::try_from(headers.len()).expect("a few headers");
        self.state(vm).begin_stream(context, headers);
        let parameters = (context, count, 1_u32);
        let action: u32 = self.call(vm, context, "proxy_on_request_headers", parameters);
        self.state(vm).after_headers(context, action);
        self.settle();
        Stream { vm, context }
    }

    /// Sends a `GET`.
    pub fn get(&mut self, root: Root, path: &str) -> Stream {
        self.request(
            root,
            &[
                (":method", "GET"),
                (":path", path),
                (":authority", "registry"),
            ],
        )
    }

    /// The state of a request.
    pub fn outcome(&mut self, stream: Stream) -> Outcome {
        self.state(stream.vm).outcome(stream.context)
    }

    /// The reply that a request got.
    ///
    /// # Panics
    /// When it has none.
    pub fn reply(&mut self, stream: Stream) -> Reply {
        match self.outcome(stream) {
            Outcome::Replied(reply) => reply,
            other => panic!("no reply, but {other:?}"),
        }
    }

    /// Ends a request, as when the client closes its connection.
    pub fn leave(&mut self, stream: Stream) {
        self.end(stream.vm, stream.context);
        self.settle();
    }

    /// Sets or removes a property of all streams of a VM.
    pub fn know(&mut self, root: Root, path: &[&str], value: Option<Vec<u8>>) {
        let path = path.join("\0");
        let attributes = &mut self.state(root.vm).attributes;
        match value {
            Some(value) => attributes.insert(path, value),
            None => attributes.remove(&path),
        };
    }

    /// Which streams of a VM were answered, first to last.
    pub fn answered_in_order(&mut self, root: Root) -> Vec<Stream> {
        let vm = root.vm;
        let answered = self.state(vm).answered.iter();
        answered.map(|&context| Stream { vm, context }).collect()
    }

    /// The callouts that were sent since the last time, of all VMs.
    pub fn callouts(&mut self) -> Vec<Callout> {
        let vms = self.vms.iter_mut();
        vms.flat_map(|vm| std::mem::take(&mut vm.store.data_mut().sent))
            .collect()
    }

    /// The one callout that was sent since the last time.
    ///
    /// # Panics
    /// When there was none or more than one.
    pub fn callout(&mut self) -> Callout {
        let [callout] = <[Callout; 1]>::try_from(self.callouts()).expect("one callout");
        callout
    }

    /// Lets the response to a callout arrive.
    pub fn respond(&mut self, callout: &Callout, response: Response) {
        let (vm, token) = (callout.vm, callout.token);
        assert!(self.state(vm).open.remove(&token), "it was answered before");
        let context = callout.context;
        if !self.state(vm).contexts.contains(&context) {
            return;
        }
        let size = |length: usize| u32::try_from(length).expect("a small response");
        let parameters = (
            context,
            token,
            size(response.headers.len()),
            size(response.body.len()),
            0_u32,
        );
        self.state(vm).response = Some(response);
        let () = self.call(vm, context, "proxy_on_http_call_response", parameters);
        self.state(vm).response = None;
        self.settle();
    }

    /// Makes the host refuse callouts from now on: with `BadArgument` when `unknown_cluster`, else
    /// with `InternalFailure`, as for a cluster without a healthy host.
    pub fn refuse_callouts(&mut self, root: Root, unknown_cluster: bool) {
        let status = if unknown_cluster {
            abi::BAD_ARGUMENT
        } else {
            abi::INTERNAL_FAILURE
        };
        self.state(root.vm).refuse_callouts = Some(status);
    }

    /// Makes every continued request fail at once from now on, as without a healthy host.
    pub fn refuse_upstream(&mut self, root: Root) {
        self.state(root.vm).refuse_upstream = true;
    }

    /// Makes the host refuse messages to queues from now on.
    pub fn refuse_messages(&mut self, root: Root) {
        self.state(root.vm).refuse_messages = true;
    }

    /// Makes the host fail from now on to hand over the bodies of responses to callouts.
    pub fn withhold_bodies(&mut self, root: Root) {
        self.state(root.vm).withhold_bodies = true;
    }

    /// Moves the clock on, and calls the roots that want to be called each second.
    pub fn advance(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.world.borrow_mut().now += 1;
            for vm in 0..self.vms.len() {
                for root in self.state(vm).ticking.clone() {
                    let () = self.call(vm, root, "proxy_on_tick", root);
                    self.settle();
                }
            }
        }
    }

    /// Sets the clock back.
    pub fn set_back(&mut self, seconds: u64) {
        self.world.borrow_mut().now -= seconds;
    }

    /// The host calls that a VM made since the last time, by name.
    pub fn host_calls(&mut self, root: Root) -> Vec<&'static str> {
        std::mem::take(&mut self.state(root.vm).host_calls)
    }

    /// Corrupts shared data, as another plugin with the same `vm_id` could: each occurrence of `from` becomes
    /// `to`, of the same length.
    pub fn spoil_shared_data(&mut self, from: &[u8], to: &[u8]) {
        self.world.borrow_mut().spoil(from, to);
    }

    /// How many bytes shared data holds, keys not counted.
    pub fn shared_bytes(&self) -> usize {
        self.world.borrow().shared_bytes()
    }

    /// What was added to a metric of a VM, in order; nothing when it was never defined.
    pub fn metric(&mut self, root: Root, name: &str) -> Vec<u64> {
        self.state(root.vm).metric(name)
    }

    /// A fact that the filter noted on a request.
    pub fn property(&mut self, stream: Stream, path: &str) -> Option<String> {
        self.state(stream.vm).property(stream.context, path)
    }

    /// Everything that a VM has logged.
    pub fn log(&mut self, root: Root) -> Vec<LogLine> {
        self.state(root.vm).log.clone()
    }

    /// Runs Envoy's work between callbacks to the end.
    fn settle(&mut self) {
        while let Some((vm, root, queue)) = self.next_wake() {
            if self.state(vm).contexts.contains(&root) {
                let () = self.call(vm, root, "proxy_on_queue_ready", (root, queue));
            }
        }
    }

    fn next_wake(&self) -> Option<(usize, u32, u32)> {
        self.world.borrow_mut().wakes.pop_front()
    }

    /// Runs the list of deferred actions after a callback.
    fn after_callback(&mut self, vm: usize) {
        while let Some(stream) = self.state(vm).actions.pop_front() {
            self.state(vm).nested += 1;
            let nested = self.state(vm).nested;
            assert!(nested <= STACK, "Maximum call stack size exceeded");
            let is_replied = matches!(
                self.outcome(Stream {
                    vm,
                    context: stream
                }),
                Outcome::Replied(_)
            );
            if is_replied || self.state(vm).refuse_upstream {
                self.end(vm, stream);
            }
            self.state(vm).nested -= 1;
        }
    }

    fn end(&mut self, vm: usize, context: u32) {
        if !self.state(vm).contexts.contains(&context) {
            return;
        }
        let done: Option<u32> = self.call_if_exported(vm, context, "proxy_on_done", context);
        assert_ne!(done, Some(0), "nothing keeps a stream from ending");
        self.call_back(vm, context, "proxy_on_log", context);
        self.call_back(vm, context, "proxy_on_delete", context);
        self.state(vm).contexts.remove(&context);
    }

    fn state(&mut self, vm: usize) -> &mut State {
        self.vms[vm].store.data_mut()
    }

    fn call_back<P: WasmParams>(&mut self, vm: usize, context: u32, name: &str, parameters: P) {
        let _: Option<()> = self.call_if_exported(vm, context, name, parameters);
    }

    fn call_if_exported<P: WasmParams, R: WasmResults>(
        &mut self,
        vm: usize,
        context: u32,
        name: &str,
        parameters: P,
    ) -> Option<R> {
        let Vm {
            store, instance, ..
        } = &mut self.vms[vm];
        instance.get_func(store, name)?;
        Some(self.call(vm, context, name, parameters))
    }

    fn call<P: WasmParams, R: WasmResults>(
        &mut self,
        vm: usize,
        context: u32,
        name: &str,
        parameters: P,
    ) -> R {
        let Vm {
            store, instance, ..
        } = &mut self.vms[vm];
        store.data_mut().effective = context;
        let function = instance
            .get_typed_func::<P, R>(&mut *store, name)
            .unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let result = function
            .call(&mut *store, parameters)
            .unwrap_or_else(|error| panic!("{name}: {error:?}\nlog: {:#?}", store.data().log));
        self.after_callback(vm);
        result
    }
}
