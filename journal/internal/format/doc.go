// Package format encodes and decodes what a journal stores: the batches of the log and the entries of the index. It
// starts no goroutine and does no I/O. Its decoders are total: they take any bytes, and allocate no more than these
// call for. ../../FORMAT.md draws every byte.
package format
