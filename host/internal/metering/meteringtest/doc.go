// Package meteringtest tests the rewriter: it runs modules and their rewritten forms side by side, on
// wazero's compiler and interpreter, and on a slow interpreter that was written from the text of the
// tariff alone.
//
// Production code does not import it.
package meteringtest
