package admission

import (
	"maps"
	"slices"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
)

// WASI is the system interface that ordinary toolchains link against. All its functions are offered, so that
// any guest links, but they give no access to the machine: time and randomness are the command's, output
// becomes log lines, there are no files, and a guest cannot sleep.
const WASI = "wasi_snapshot_preview1"

const (
	i32 = wasmbin.I32
	i64 = wasmbin.I64
)

func sig(t ...wasmbin.ValType) []wasmbin.ValType { return t }

// signatures are those of all functions that a guest may import, by module and name. They are never changed.
var signatures = map[string]map[string]wasmbin.FuncType{
	abi.ImportModule: {
		abi.ImportLog:   {Params: sig(i32, i32, i32)},
		abi.ImportFault: {Params: sig(i32, i32)},
	},
	"env": {
		"abort": {Params: sig(i32, i32, i32, i32)}, // of AssemblyScript
	},
	WASI: {
		"proc_exit":               {Params: sig(i32)},
		"args_get":                {Params: sig(i32, i32), Results: sig(i32)},
		"args_sizes_get":          {Params: sig(i32, i32), Results: sig(i32)},
		"environ_get":             {Params: sig(i32, i32), Results: sig(i32)},
		"environ_sizes_get":       {Params: sig(i32, i32), Results: sig(i32)},
		"clock_res_get":           {Params: sig(i32, i32), Results: sig(i32)},
		"clock_time_get":          {Params: sig(i32, i64, i32), Results: sig(i32)},
		"random_get":              {Params: sig(i32, i32), Results: sig(i32)},
		"poll_oneoff":             {Params: sig(i32, i32, i32, i32), Results: sig(i32)},
		"sched_yield":             {Results: sig(i32)},
		"proc_raise":              {Params: sig(i32), Results: sig(i32)},
		"fd_write":                {Params: sig(i32, i32, i32, i32), Results: sig(i32)},
		"fd_fdstat_get":           {Params: sig(i32, i32), Results: sig(i32)},
		"fd_filestat_get":         {Params: sig(i32, i32), Results: sig(i32)},
		"fd_fdstat_set_flags":     {Params: sig(i32, i32), Results: sig(i32)},
		"fd_fdstat_set_rights":    {Params: sig(i32, i64, i64), Results: sig(i32)},
		"fd_close":                {Params: sig(i32), Results: sig(i32)},
		"fd_datasync":             {Params: sig(i32), Results: sig(i32)},
		"fd_sync":                 {Params: sig(i32), Results: sig(i32)},
		"fd_seek":                 {Params: sig(i32, i64, i32, i32), Results: sig(i32)},
		"fd_tell":                 {Params: sig(i32, i32), Results: sig(i32)},
		"fd_advise":               {Params: sig(i32, i64, i64, i32), Results: sig(i32)},
		"fd_allocate":             {Params: sig(i32, i64, i64), Results: sig(i32)},
		"fd_filestat_set_size":    {Params: sig(i32, i64), Results: sig(i32)},
		"fd_filestat_set_times":   {Params: sig(i32, i64, i64, i32), Results: sig(i32)},
		"fd_prestat_get":          {Params: sig(i32, i32), Results: sig(i32)},
		"fd_prestat_dir_name":     {Params: sig(i32, i32, i32), Results: sig(i32)},
		"fd_read":                 {Params: sig(i32, i32, i32, i32), Results: sig(i32)},
		"fd_pread":                {Params: sig(i32, i32, i32, i64, i32), Results: sig(i32)},
		"fd_pwrite":               {Params: sig(i32, i32, i32, i64, i32), Results: sig(i32)},
		"fd_readdir":              {Params: sig(i32, i32, i32, i64, i32), Results: sig(i32)},
		"fd_renumber":             {Params: sig(i32, i32), Results: sig(i32)},
		"path_create_directory":   {Params: sig(i32, i32, i32), Results: sig(i32)},
		"path_filestat_get":       {Params: sig(i32, i32, i32, i32, i32), Results: sig(i32)},
		"path_filestat_set_times": {Params: sig(i32, i32, i32, i32, i64, i64, i32), Results: sig(i32)},
		"path_link":               {Params: sig(i32, i32, i32, i32, i32, i32, i32), Results: sig(i32)},
		"path_open":               {Params: sig(i32, i32, i32, i32, i32, i64, i64, i32, i32), Results: sig(i32)},
		"path_readlink":           {Params: sig(i32, i32, i32, i32, i32, i32), Results: sig(i32)},
		"path_remove_directory":   {Params: sig(i32, i32, i32), Results: sig(i32)},
		"path_rename":             {Params: sig(i32, i32, i32, i32, i32, i32), Results: sig(i32)},
		"path_symlink":            {Params: sig(i32, i32, i32, i32, i32), Results: sig(i32)},
		"path_unlink_file":        {Params: sig(i32, i32, i32), Results: sig(i32)},
		"sock_accept":             {Params: sig(i32, i32, i32), Results: sig(i32)},
		"sock_recv":               {Params: sig(i32, i32, i32, i32, i32, i32), Results: sig(i32)},
		"sock_send":               {Params: sig(i32, i32, i32, i32, i32), Results: sig(i32)},
		"sock_shutdown":           {Params: sig(i32, i32), Results: sig(i32)},
	},
}

// Signature is the signature of a function that a guest may import; false if there is none of that name.
func Signature(module, name string) (wasmbin.FuncType, bool) {
	t, ok := signatures[module][name]
	return t, ok
}

// Offered reports whether a guest may import functions from a module.
func Offered(module string) bool { return signatures[module] != nil }

// Modules lists the modules from which a guest may import functions.
func Modules() []string { return slices.Sorted(maps.Keys(signatures)) }

// Functions lists the functions that a guest may import from a module.
func Functions(module string) []string { return slices.Sorted(maps.Keys(signatures[module])) }
