package hostile

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
)

// Attacks run in another process than the neighbour's client: there, their garbage collection and their use
// of the processor would look like delays of the host. The process has the lowest priority, as real clients
// have their own machines; nice(1) sets it for all of its threads.
const (
	attackerNames   = "HOSTILE_ATTACKS" // joined by commas
	attackerAddress = "HOSTILE_ADDRESS"
)

// beAttacker runs the attacks that the environment names, until its input ends.
func beAttacker(names []string) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	c := &hosttest.Child{Address: os.Getenv(attackerAddress)}
	var chosen []attack
	for _, a := range attacks() {
		if slices.Contains(names, a.name) {
			chosen = append(chosen, a)
			if a.prepare != nil {
				a.prepare()
			}
		}
	}
	fmt.Println(attackerReady)
	var all sync.WaitGroup
	for _, a := range chosen {
		all.Go(func() { a.run(ctx, c) })
	}
	all.Wait()
}

// attackerReady is the attacker's message that everything is prepared and the attacks begin.
const attackerReady = "ready"

// launch runs attacks in another process until ctx ends. begun is closed when they begin.
func launch(ctx context.Context, c *hosttest.Child, begun chan<- struct{}, names ...string) error {
	defer func() {
		if begun != nil {
			close(begun)
		}
	}()
	cmd := exec.CommandContext(ctx, "nice", "-n", "19", os.Args[0])
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Env = append(os.Environ(), attackerNames+"="+strings.Join(names, ","), attackerAddress+"="+c.Address)
	cmd.Stderr = os.Stderr
	said, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return err
	}
	line, _ := bufio.NewReader(said).ReadString('\n')
	if line == attackerReady+"\n" {
		close(begun)
		begun = nil
	}
	if err := cmd.Wait(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("the attacker ended: %w", err)
	}
	return nil
}
