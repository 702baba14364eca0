// Package sandbox runs untrusted modules. Only it and the packages below it import wazero.
//
// Each step returns a new type. [Runtime.Compile] verifies the bytes, rewrites and compiles them, starts one
// instance to ask for the manifest, and returns a [Program]. [Program.Instantiate] starts an [Instance],
// which has its own memory and answers calls. After any failure [Instance.Reset] replaces its state.
//
// Package admission verifies the bytes. Package compile, below this one, makes machine code of them and keeps
// it on disk. Package fair decides which instance has a turn to compute.
//
// The effects of a guest on the host are bounded: its memory by the service's limit, its processor time
// between checks by slices, its log by a byte count, and its answers by the rules in answer.go. It sees no
// clock, randomness, file, environment or network, except what came with the command.
//
// Errors are *service.Error. A refused module is KindBadModule, with every violation in Reasons. Failures
// inside a guest are KindTrap, KindGuestDeadline, KindGuestMemory, KindGuestExit, KindGuestStack,
// KindGuestFuel, KindProtocol, KindOutcomeTooLarge and KindFault, with the guest's stack trace in Detail if
// there is one.
package sandbox
