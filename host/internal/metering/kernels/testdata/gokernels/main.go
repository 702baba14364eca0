// Command gokernels is a guest that does typical work of services, for measuring what a host costs
// them. Each export does its work n times and returns a number that depends on all of it.
package main

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
)

func main() {}

type transfer struct {
	From   string   `json:"from"`
	To     string   `json:"to"`
	Amount int64    `json:"amount"`
	Note   string   `json:"note"`
	Tags   []string `json:"tags"`
}

// A handler: reads a command, decides, writes an event.
//
//go:wasmexport json
func handleJSON(n int32) (sum int64) {
	command := []byte(
		`{"from":"alice","to":"bob","amount":250,"note":"thanks for the \"fish\"","tags":["food","friends"]}`)
	for range n {
		var t transfer
		if err := json.Unmarshal(command, &t); err != nil || t.Amount <= 0 {
			return -1
		}
		t.Tags = append(t.Tags, "seen")
		event, err := json.Marshal(t)
		if err != nil {
			return -1
		}
		sum += int64(len(event))
	}
	return sum
}

//go:wasmexport hash
func hash(n int32) int64 {
	data := make([]byte, 4096)
	for range n {
		h := sha256.Sum256(data)
		copy(data, h[:])
	}
	return int64(binary.LittleEndian.Uint64(data))
}

//go:wasmexport sort
func sortNumbers(n int32) (sum int64) {
	numbers := make([]int, 2000)
	x := uint32(1)
	for range n {
		for i := range numbers {
			x = x*1664525 + 1013904223
			numbers[i] = int(x)
		}
		slices.Sort(numbers)
		sum += int64(numbers[len(numbers)/2])
	}
	return sum
}

//go:wasmexport matrix
func matrix(n int32) int64 {
	const size = 48
	var a, b, c [size][size]float64
	for i := range size {
		for j := range size {
			a[i][j], b[i][j] = float64(i-j)/7, float64(i+j)/11
		}
	}
	for range n {
		for i := range size {
			for j := range size {
				var sum float64
				for k := range size {
					sum += a[i][k] * b[k][j]
				}
				c[i][j] = math.Sqrt(math.Abs(sum))
			}
		}
		a, c = c, a
	}
	return int64(a[3][5] * 1e6)
}

//go:wasmexport strings
func buildStrings(n int32) (sum int64) {
	for range n {
		var b strings.Builder
		for i := range 100 {
			b.WriteString("item ")
			b.WriteString(strconv.Itoa(i * 7919))
			b.WriteString(": ")
			b.WriteString(strings.ToUpper("some text"))
			b.WriteByte('\n')
		}
		sum += int64(len(strings.Split(b.String(), "\n")))
	}
	return sum
}

//go:wasmexport loop
func loop(n int32) int64 {
	x := uint64(88172645463325252)
	for range n {
		for range 10_000 {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
		}
	}
	return int64(x)
}

//go:wasmexport recursion
func recursion(n int32) (sum int64) {
	for i := range n {
		sum += fibonacci(15 + int64(i&3))
	}
	return sum
}

func fibonacci(n int64) int64 {
	if n < 2 {
		return n
	}
	return fibonacci(n-1) + fibonacci(n-2)
}

//go:wasmexport memcpy
func memcpy(n int32) (sum int64) {
	from, to := make([]byte, 64<<10), make([]byte, 64<<10)
	for i := range n {
		from[i%4096]++
		copy(to, from)
		sum += int64(to[i%4096])
	}
	return sum
}

//go:wasmexport maps
func countWords(n int32) (sum int64) {
	words := strings.Fields("the quick brown fox jumps over the lazy dog and the dog sleeps on while the fox runs")
	for range n {
		count := map[string]int{}
		for i := range 200 {
			count[words[i%len(words)]]++
		}
		sum += int64(count["the"])
	}
	return sum
}

//go:wasmexport sieve
func sieve(n int32) (sum int64) {
	for range n {
		var composite [10_000]bool
		for i := 2; i < len(composite); i++ {
			if composite[i] {
				continue
			}
			sum++
			for j := i * i; j < len(composite); j += i {
				composite[j] = true
			}
		}
	}
	return sum
}
