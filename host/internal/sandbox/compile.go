package sandbox

import (
	"context"

	"github.com/bulkhead-wasm/bulkhead/host/internal/admission"
	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox/compile"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// compile makes p ready to be instantiated, and reports its stages to tell.
func (p *Program) compile(
	ctx context.Context, from compile.Source, set service.Settings, tell func(compile.Stage),
) (err error) {
	background := context.WithoutCancel(ctx)
	c := p.runtime.compiler
	p.wazero = c.Runtime(background)
	unload := func() {
		if p.compiled != nil {
			_ = p.compiled.Close(background)
		}
		_ = p.wazero.Close(background)
		p.giveCode()
	}
	p.stored, err = c.Compile(ctx, compile.Request{
		Module: from, Order: compile.OrderOf(p.limits, set), Limits: p.limits, Tell: tell, Load: p.load, Unload: unload,
	})
	if err != nil {
		return err
	}
	if err := provide(ctx, p.wazero, p.imports); err != nil {
		unload()
		return service.Errorf(service.KindInternal, "the host's functions cannot be offered: %w", err)
	}
	return nil
}

// load loads the program's machine code through wazero, or compiles it. The code takes code bytes of memory.
func (p *Program) load(ctx context.Context, f *compile.Facts, module []byte, code int64) (err error) {
	var v admission.Violations // the stored code may be that of a service with a higher limit
	if v.MemoryPages(f.MemoryPages, p.limits); v.Err() != nil {
		return v.Err()
	}
	p.know(f)
	if err := p.takeCode(code); err != nil {
		return err
	}
	if p.compiled, err = compile.Module(ctx, p.wazero, module); err != nil {
		p.giveCode()
	}
	return err
}

// know stores the facts of the module that the host needs.
func (p *Program) know(f *compile.Facts) {
	p.metered, p.imports, p.module.Tariff = f.Metered(), f.Modules, f.Tariff
	p.manifest, p.hasManifest = f.Manifest, f.HasManifest
	p.tableBytes = int64(f.TableBytes)
	p.heapBytes = heapBytes(f, p.limits)
	p.minBytes = int64(f.MemoryPages) * admission.PageBytes
	p.startBytes = p.minBytes
}
