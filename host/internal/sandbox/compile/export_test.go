package compile

import (
	"context"
	"errors"
	"fmt"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Put stores what an older tariff made of a module under the name that the module has today, as if names did
// not depend on the tariff.
func (c *Compiler) Put(ctx context.Context, module, old []byte, tariff int, l service.Limits) error {
	stage, unstage, err := c.store.stage()
	if err != nil {
		return err
	}
	defer unstage()
	o := OrderOf(l.WithDefaults(), service.Settings{})
	f, _, err := rewrite(module, o, func(Stage) {})
	if err != nil {
		return err
	}
	f.Tariff = tariff
	code, err := compileForm(ctx, f, old, stage)
	if err != nil || code == "" {
		return fmt.Errorf("compiled into %q: %w", code, err)
	}
	name := o.name(service.DigestOf(module))
	if err := c.store.install(name, stage, code); err != nil {
		return err
	}
	_, coded, err := c.store.open(name, maxForm(int64(len(module))))
	if err == nil && !coded {
		err = errors.New("the store does not have it")
	}
	return err
}
