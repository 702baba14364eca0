// Package sandbox runs modules that nobody vouches for. It and the packages below it are the only ones
// that know wazero.
//
// A module's way through it is a chain of types: [Runtime.Compile] verifies the
// bytes, rewrites and compiles them, starts one instance to ask for the manifest, and
// returns a [Program]; [Program.Instantiate] starts an [Instance], which has its own
// memory, answers calls and is thrown away by [Instance.Reset] after any failure.
//
// Package admission verifies the bytes, package compile below makes machine code of them and keeps it on
// disk, and package fair says which instance has a turn to compute.
//
// What a guest can do to the host is bounded: its memory by the service's limit,
// a call's processor time between slices, its log by a byte count, its answers by the
// rules that answer.go checks. It sees no clock, randomness, file, environment
// or network but what the command brought with it.
//
// Errors are *service.Error. A module that is refused is KindBadModule, with every
// violation in Reasons. What goes wrong inside a guest has one of the kinds
// KindTrap, KindGuestDeadline, KindGuestMemory, KindGuestExit, KindGuestStack,
// KindProtocol, KindOutcomeTooLarge and KindFault, with the guest's stack trace in
// Detail where there is one.
package sandbox
