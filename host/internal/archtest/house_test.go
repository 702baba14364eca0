package archtest

// room is the rule for one package, or, if its path ends in "/*", for each
// package directly below.
type room struct {
	path  string
	layer string // of layers; imports go to rooms of lower layers only
	// may lists the rooms it may import; "below" stands for every room of a lower layer.
	may []string
	// outside lists the modules from elsewhere that it alone may import.
	outside []string
	// never lists what else it must not import, although its layer allows it.
	never []string
	// support is a room for tests: only tests and other support rooms import it.
	support bool
	why     string // one sentence: what it knows, and so why it must not know more
}

// layers are the layers of the tree, the lowest first.
var layers = []string{
	"ground",    // needs nothing
	"packing",   // bytes in, bytes out
	"contracts", // what has to outlive every implementation
	"formats",   // what a contract looks like on disk
	"words",     // what the host speaks of, and the smallest tools
	"tools",     // one job each, none of which knows a service that runs
	"parts",     // what a service that runs is made of
	"compile",   // how guests are compiled
	"sandbox",   // guests that run
	"engine",    // one service
	"registry",  // all services
	"routes",    // how requests find their service, and readers their log
	"doors",     // how requests come in, to whatever host, and go out
	"host",      // the whole
	"adapters",  // the host seen from outside
	"program",   // what is started
	"proofs",    // tests of the whole, and examples
	"modules",   // guests of the examples
}

// house is the whole tree.
var house = []room{
	{path: "abi", layer: "contracts", never: []string{"fmt", "reflect", "encoding/json"},
		why: "the contract of host and guest is compiled into every guest, where fmt, reflect and encoding/json cost " +
			"size, start and speed"},
	{path: "internal/durable", layer: "ground",
		why: "a small file that survives a loss of power is written in the same way whatever is in it, by journal " +
			"and host"},
	{path: "internal/yield", layer: "ground",
		why: "when long work in memory lets others run is one rule for journal and host, and needs neither"},
	{path: "journal/internal/pack", layer: "packing", may: []string{"internal/yield"},
		outside: []string{"github.com/klauspost/compress"},
		why: "packing is bytes in and bytes out, the same for batches and for tables; what they mean is not its " +
			"business"},
	{path: "journal/internal/mint", layer: "ground",
		why: "who can make a receipt is decided by who can import the key to it"},
	{path: "journal", layer: "contracts", may: []string{"journal/internal/mint"},
		why: "the words of the log must outlive every storage and every host, so they know neither"},
	{path: "journal/internal/format", layer: "formats", may: []string{"journal", "journal/internal/pack",
		"internal/yield"},
		why: "what is on disk can be read without anything that runs, to write, verify and back it up"},
	{path: "journal/internal/stored", layer: "words", may: []string{"journal", "journal/internal/format"},
		why: "the bounds of a log are read in one way, whether its journal runs or not"},
	{path: "journal/commitlog", layer: "tools", may: []string{"journal", "journal/internal/format",
		"journal/internal/mint", "journal/internal/stored", "internal/yield"},
		why: "a journal that runs knows stores by their seams alone, and no host"},
	{path: "journal/verify", layer: "tools", may: []string{"journal", "journal/internal/format",
		"journal/internal/stored", "internal/yield"},
		why: "who checks what was written must not use what wrote it"},
	{path: "host/service", layer: "words", may: []string{"internal/yield", "abi", "journal", "host/internal/safetext",
		"host/internal/jsoncheck"},
		why: "the vocabulary that everything in the host speaks; a word that needs a mechanism is not a word"},
	{path: "host/internal/safetext", layer: "contracts",
		why: "what a terminal or a log must not get is one rule, for the words of the host, its logs and the " +
			"program, so it is below all of them"},
	{path: "host/internal/logging", layer: "words", may: []string{"host/internal/lifecycle"},
		why: "what a log may cost is bytes that wait and bytes a second; what is logged is none of its business"},
	{path: "host/internal/jsoncheck", layer: "contracts", may: []string{"internal/yield"},
		why: "whether a text is JSON, and JSON that everybody reads alike, is asked at every border, and is nothing " +
			"but a question about bytes"},
	{path: "host/internal/lifecycle", layer: "contracts",
		why: "starting and stopping is one contract for everything that runs, so it knows nothing that runs"},

	// for the processor time of a thread
	{path: "host/internal/fair", layer: "words", outside: []string{"golang.org/x/sys"},
		why: "who comes to a turn, and when, must not depend on what is done in it; so it can be tested by itself"},
	{path: "host/internal/ws", layer: "words", outside: []string{"github.com/gorilla/websocket"},
		why: "a connection of messages is the same for gateway and client, and what the messages say is none of its " +
			"business"},
	{path: "host/internal/wasmbin", layer: "words",
		why: "a WebAssembly binary is bytes; reading one must be possible, and be fuzzed, without a runtime"},
	{path: "host/internal/metering", layer: "tools", may: []string{"host/internal/wasmbin"},
		why: "rewriting a module is bytes in and bytes out: it must be possible to prove it against any runtime, and " +
			"so it knows none"},
	{path: "host/internal/metering/meteringtest", layer: "engine",
		may:     []string{"host/internal/metering", "host/internal/wasmbin", "host/internal/testguest"},
		outside: []string{"github.com/tetratelabs/wazero"}, support: true,
		why: "holds rewritten modules against the originals, on wazero's two engines and a slow interpreter of its " +
			"own"},
	{path: "host/internal/admission", layer: "parts", may: []string{"abi", "host/service", "host/internal/metering",
		"host/internal/wasmbin"},
		why: "what a module may be is a question about its bytes; it is answered before anything runs, by a process " +
			"that has no runtime if need be"},
	{path: "host/internal/compartment", layer: "tools",
		why: "a child process with bounds is the same whatever it works on, and what works on it is none of its " +
			"business"},
	{path: "host/internal/metering/kernels", layer: "registry",
		may:     []string{"host/internal/metering", "host/internal/metering/meteringtest", "host/internal/wasmbin"},
		outside: []string{"github.com/tetratelabs/wazero"}, support: true,
		why: "real work in the languages of real guests, to measure what metering costs them"},
	{path: "journal/badgerlog", layer: "tools", may: []string{"journal"},
		outside: []string{"github.com/dgraph-io/badger/v4"},
		why:     "Badger is one way to keep a log, and can only be replaced if nobody else has met it"},
	{path: "journal/storage", layer: "parts", may: []string{"journal", "journal/badgerlog",
		"journal/internal/format", "journal/pebbleindex"},
		why: "a directory with a log and an index is put together here, so that each can be replaced without the " +
			"other"},
	{path: "journal/pebbleindex", layer: "tools", may: []string{"internal/yield", "journal"},
		outside: []string{"github.com/cockroachdb/pebble/v2"},
		why:     "Pebble is one way to keep an index, and can only be replaced if nobody else has met it"},
	{path: "journal/backup", layer: "parts", may: []string{"internal/durable", "journal", "journal/commitlog",
		"journal/internal/format"},
		why: "a backup is batches in a file; it must be readable without a storage or a host"},
	{path: "guest-sdk/internal/*", layer: "tools", may: []string{"abi"}, outside: guestJSON,
		why: "parts of the SDK live by the rule of the SDK"},
	{path: "guest-sdk", layer: "parts", may: []string{"abi", "guest-sdk/internal/*"}, outside: guestJSON,
		why: "guest and host meet in abi alone; whatever else the SDK imported would be in every guest"},
	{path: "guest-sdk/guesttest", layer: "engine", may: []string{"abi", "guest-sdk", "guest-sdk/internal/*"},
		support: true,
		why:     "runs a service natively under go test, with nothing that a guest would not have"},

	{path: "host/internal/sandbox/compile", layer: "compile", may: []string{"abi", "host/service",
		"host/internal/admission", "host/internal/compartment", "host/internal/lifecycle", "host/internal/metering",
		"host/internal/wasmbin"},
		outside: []string{"github.com/tetratelabs/wazero"},
		why:     "making machine code of a module, and keeping it, is done without running anything of the module"},
	{path: "host/internal/sandbox/pages", layer: "tools", outside: []string{"golang.org/x/sys"},
		why: "how memories begin as an image and share its pages is between the system and bytes; so it is tested " +
			"without a guest, and unsafe pointers stay here"},
	{path: "host/internal/sandbox", layer: "sandbox", may: []string{"internal/yield", "host/internal/admission",
		"host/internal/jsoncheck", "host/service", "abi", "journal", "host/internal/safetext", "host/internal/wasmbin",
		"host/internal/metering", "host/internal/fair", "host/internal/lifecycle", "host/budget",
		"host/internal/schema", "host/internal/sandbox/compile", "host/internal/sandbox/pages"},
		outside: []string{"github.com/tetratelabs/wazero"},
		why:     "wazero's types, errors and versions stop here: above are only calls and classified failures"},
	{path: "host/budget", layer: "tools", may: []string{"host/service"},
		why: "how much there is of a resource, and who holds it, is counted in one place by those who know what they " +
			"take it for"},
	{path: "host/internal/schema", layer: "tools", may: []string{"internal/yield", "host/internal/jsoncheck",
		"host/service", "abi"},
		outside: []string{"github.com/santhosh-tekuri/jsonschema/v6", "golang.org/x/text"},
		why: "whether data fits a schema is a question about two texts of strangers; it has bounds of its own " +
			"and needs nothing that runs"},
	{path: "host/internal/describe", layer: "parts", may: []string{"abi", "host/service", "host/internal/api",
		"host/internal/schema"},
		why: "what a manifest says of a service, for people and for tools, is a question about texts; it needs no " +
			"service that runs"},
	{path: "host/internal/latency", layer: "tools", may: []string{"host/service"},
		why: "how long commands take is counted within a bound on what is kept of them; who shows it, and how, is " +
			"not its business"},
	{path: "host/internal/machine", layer: "words",
		why: "what a machine has is read from its files; what part of it a host takes is the host's decision"},
	{path: "host/internal/catalog", layer: "parts",
		may: []string{"internal/durable", "host/service", "host/budget", "journal", "abi"},
		why: "modules and deployments at rest are files and events; what runs them is not its business"},
	{path: "host/internal/stream", layer: "parts", may: []string{"host/service", "host/budget",
		"host/internal/fair", "journal", "journal/commitlog", "abi", "host/internal/lifecycle"},
		why: "a subscriber is a cursor over the log; it must work for readers that have never heard of a sandbox"},
	{path: "host/internal/apply", layer: "tools", may: []string{"host/service", "journal"},
		why: "how an event of the log becomes one of a guest is the same for a service that runs and for a trial"},
	{path: "host/internal/scratch", layer: "parts",
		may: []string{"host/internal/apply", "host/service", "journal", "journal/commitlog"},
		why: "shows what a module makes of a log, and has no way to write to one; which sandbox it uses is a seam"},
	{path: "host/internal/gate", layer: "engine",
		may: []string{"host/internal/scratch", "host/service", "journal", "journal/commitlog"},
		why: "judges a module by a log; building and swapping modules is not its business"},
	{path: "host/internal/engine", layer: "engine", may: []string{"host/internal/apply", "host/service", "host/budget",
		"host/internal/schema", "abi", "journal", "journal/commitlog", "host/internal/lifecycle"},
		why: "the order of call, append, sync, publish, reply is tested with fakes, so guest and log are seams and " +
			"neither wazero nor Badger is in sight"},
	{path: "host/internal/conform", layer: "engine",
		may: []string{"host/service", "abi", "journal", "host/internal/sandbox", "host/internal/schema",
			"host/internal/wasmbin"},
		why: "judges a module by the ABI's rules in a sandbox; what a service would do with it does not matter"},
	{path: "host/internal/registry", layer: "registry",
		may: []string{"host/service", "host/budget", "abi", "journal", "host/internal/lifecycle",
			"host/internal/latency", "host/internal/engine", "host/internal/fair", "host/internal/stream",
			"host/internal/sandbox", "host/internal/sandbox/compile", "host/internal/catalog", "host/internal/gate",
			"host/internal/scratch"},
		why: "keeps the set of services running; how requests come in is not its business"},
	{path: "host/internal/router", layer: "routes", may: []string{"host/service"},
		why: "senders know names and keys; where a service runs may change without their knowing, so they meet it by " +
			"an interface only"},
	{path: "host/internal/consumer", layer: "routes", may: []string{"host/service"},
		why: "who follows a log goes on when the journal is opened again, whatever the events are for; it touches no " +
			"sandbox and no engine"},
	{path: "host", layer: "host", may: []string{"below"},
		outside: []string{"github.com/prometheus/client_golang"}, // for the name of one type of the public API
		why:     "the composition root and the public API: it may know every part below, and no interface above"},
	{path: "host/internal/api", layer: "tools", may: []string{"host/internal/jsoncheck", "host/service", "abi",
		"journal"},
		why: "the JSON that goes over the wire is the same for gateway and client, and rests on nothing that runs"},
	{path: "host/internal/telemetry", layer: "doors", may: []string{"host/service", "journal"},
		outside: []string{"github.com/prometheus/client_golang"},
		why: "metrics are read off a host from outside, by an interface of its own; no part below may depend on " +
			"being measured"},
	{path: "host/client", layer: "doors", may: []string{"host/internal/api", "host/service", "abi", "journal",
		"host/internal/lifecycle", "host/internal/ws"},
		why: "the public Go client knows what goes over the wire and how long to wait, and nothing else, or it would " +
			"work only in our own process"},
	{path: "host/internal/gateway", layer: "doors", outside: []string{"golang.org/x/time"},
		may: []string{"internal/yield", "host/internal/jsoncheck", "host/service", "host/internal/api",
			"host/budget", "abi", "journal", "journal/backup", "host/internal/lifecycle", "host/internal/ws",
			"host/internal/gateway/flight", "host/internal/gateway/limitlistener", "host/internal/gateway/streams",
			"host/internal/describe"},
		why: "HTTP and WebSocket are one way in; what they need of a host they say in small interfaces, so that the " +
			"host can offer them to programs that embed it"},
	{path: "host/internal/gateway/streams", layer: "routes", may: []string{"internal/yield", "host/service",
		"host/internal/api", "host/internal/gateway/flight", "host/internal/ws"},
		why: "a connection that stays open carries commands down and events up; who may open one is decided before, " +
			"so it knows neither routes nor tokens"},
	{path: "host/internal/gateway/limitlistener", layer: "routes", may: []string{"host/service", "host/budget",
		"host/internal/gateway/flight"},
		why: "how many connections there are, and which of them has to go, is decided without reading a request"},
	{path: "host/internal/gateway/flight", layer: "parts", may: []string{"host/service", "host/budget",
		"host/internal/jsoncheck"},
		why: "what a connection holds in memory, and whose turn it is, is the same for requests and streams, and " +
			"needs no network"},
	{path: "host/internal/loadgen", layer: "adapters", outside: []string{"github.com/HdrHistogram/hdrhistogram-go"},
		may: []string{"host", "host/service", "host/client", "host/internal/api", "abi", "journal"},
		why: "load comes in by the public ways only, so that what is measured is what others get"},
	{path: "host/cmd/bulkhead", layer: "program", may: []string{"below"},
		outside: []string{"github.com/alecthomas/kong"},
		never: []string{"host/internal/sandbox", "host/internal/engine", "host/internal/registry",
			"host/internal/catalog", "host/internal/stream"},
		why: "flags, signals, exit codes and printing; whatever it needs of the machinery is a call of the host"},

	{path: "plugins/*", layer: "engine", may: []string{"guest-sdk"},
		why: "a service is written against the SDK alone, ours like anybody's"},
	{path: "plugins/*/wasm", layer: "registry", may: []string{"guest-sdk", "plugins/*"},
		why: "ten lines that make a module of a service"},
	{path: "plugins/*/*test", layer: "registry", may: []string{"guest-sdk", "guest-sdk/guesttest", "plugins/*"},
		support: true,
		why:     "one table of cases, run natively here and against the module in a sandbox"},
	{path: "examples/*", layer: "proofs", may: []string{"host", "host/service", "guest-sdk", "abi", "journal"},
		why: "an example uses what its readers can use"},
	{path: "examples/*/wasm", layer: "modules", may: []string{"guest-sdk", "examples/*"},
		why: "the module of an example's service"},
	{path: "examples/evolution/*", layer: "modules", may: []string{"guest-sdk"},
		why: "a version of a service, which is a module of one file"},

	{path: "abi/abitest", layer: "tools", may: []string{"abi"}, support: true,
		why: "golden vectors of the contract, for the tests of every implementation"},
	{path: "journal/journaltest", layer: "parts", may: []string{"journal", "journal/commitlog",
		"journal/internal/format", "journal/verify"}, support: true,
		why: "what a storage must promise, and one in memory that breaks on demand"},
	{path: "host/hosttest", layer: "program", may: []string{"below"}, support: true,
		why: "a whole host on a temporary directory and a free port"},
	{path: "host/internal/testguest", layer: "parts", may: []string{"abi", "host/internal/wasmbin", "host/service"},
		support: true,
		why:     "guests that misbehave"},
	{path: "host/internal/crash", layer: "proofs", may: []string{"below"}, support: true,
		why: "kills the real program and holds it to what it told its clients"},
	{path: "host/internal/hostile", layer: "proofs", may: []string{"below"}, support: true,
		why: "runs the real program among hostile guests and clients, and measures what its neighbours feel"},
	{path: "host/internal/lifecycle/lifecycletest", layer: "proofs", may: []string{"below"}, support: true,
		why: "holds everything that runs to one contract, and so knows all of it"},
	{path: "host/internal/readmetest", layer: "proofs", support: true,
		why: "executes the README as a newcomer would"},
	{path: "internal/prove", layer: "ground", support: true,
		why: "how long tests are is one flag for all of them, and tests of every layer ask"},
	{path: "internal/raced", layer: "ground", support: true,
		why: "whether the race detector watches is asked by tests of every layer"},
	{path: "internal/runtests", layer: "program", may: []string{"internal/prove"}, support: true,
		why: "runs go test for the Makefile; what is tested is none of its business"},
	{path: "host/internal/archtest", layer: "proofs", support: true,
		why: "this test"},
}

// guestJSON is the one JSON codec that a guest may bring along, if measurement
// chose one from elsewhere.
var guestJSON []string

// forTests are the modules from elsewhere that tests, and only tests, may import.
var forTests = []string{
	"go.uber.org/goleak",
	"github.com/gorilla/websocket", // as a peer that does what it wants
	"github.com/rogpeppe/go-internal/testscript",
	"github.com/anishathalye/porcupine",
	"github.com/cloudevents/sdk-go/v2",
	"github.com/google/jsonschema-go/jsonschema",
	"go.yaml.in/yaml/v3", // an example is a workflow, which is YAML
}

// topLevel is everything that may lie at the root of the tree, beside dotfiles.
var topLevel = []string{
	"go.mod", "go.sum", "internal", "host", "abi", "journal", "guest-sdk", "plugins", "examples",
	"Makefile", "README.md", "LICENSE", "ARCHITECTURE.md", "CHANGELOG.md",
}

// derived is what building leaves at the root; it is not part of the tree.
var derived = []string{"bin", "build"}
