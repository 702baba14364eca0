// Package orders is a service of orders. Lines are added, then the order is placed, paid and shipped; it may be
// cancelled before. Prices are whole numbers of the smallest unit.
package orders

import (
	"math"
	"strconv"
	"time"

	guest "github.com/bulkhead-wasm/bulkhead/guest-sdk"
)

// Status is a stage in the life of an order. The empty one is a draft.
type Status string

// The stages of an order.
const (
	Draft     Status = ""
	Placed    Status = "placed"
	Paid      Status = "paid"
	Shipped   Status = "shipped"
	Cancelled Status = "cancelled"
)

// MaxLines is the maximum number of lines of an order.
const MaxLines = 100

// Order is the state.
type Order struct {
	Status Status `json:"status"`
	Lines  []Line `json:"lines"`
	Total  int64  `json:"total"`
}

// Line is one article of an order.
type Line struct {
	SKU      string `json:"sku"`
	Quantity int64  `json:"quantity"`
	Price    int64  `json:"price"` // of one article
}

// LineAdded says that an article was added, or more of the same article.
type LineAdded struct{ Line }

// LineRemoved says that an article was removed.
type LineRemoved struct {
	SKU string `json:"sku"`
}

// OrderPlaced says that the customer placed the order.
type OrderPlaced struct {
	Total int64     `json:"total"`
	At    time.Time `json:"at"`
}

// OrderPaid says that the payment arrived.
type OrderPaid struct {
	Reference string `json:"reference"`
}

// OrderShipped says that the goods left.
type OrderShipped struct {
	Tracking string `json:"tracking"`
}

// OrderCancelled says that the order will not be carried out.
type OrderCancelled struct {
	Reason string `json:"reason"`
}

// Apply implements guest.Event.
func (e LineAdded) Apply(o *Order) {
	o.Total += e.Quantity * e.Price
	if i := o.find(e.SKU); i >= 0 && o.Lines[i].Price == e.Price {
		o.Lines[i].Quantity += e.Quantity
		return
	}
	o.Lines = append(o.Lines, e.Line)
}

// Apply implements guest.Event.
func (e LineRemoved) Apply(o *Order) {
	for i := o.find(e.SKU); i >= 0; i = o.find(e.SKU) {
		o.Total -= o.Lines[i].Quantity * o.Lines[i].Price
		o.Lines = append(o.Lines[:i], o.Lines[i+1:]...)
	}
}

// Apply implements guest.Event.
func (e OrderPlaced) Apply(o *Order) { o.Status = Placed }

// Apply implements guest.Event.
func (e OrderPaid) Apply(o *Order) { o.Status = Paid }

// Apply implements guest.Event.
func (e OrderShipped) Apply(o *Order) { o.Status = Shipped }

// Apply implements guest.Event.
func (e OrderCancelled) Apply(o *Order) { o.Status = Cancelled }

func (o *Order) find(sku string) int {
	for i := range o.Lines {
		if o.Lines[i].SKU == sku {
			return i
		}
	}
	return -1
}

// Remove asks to remove an article.
type Remove struct {
	SKU string `json:"sku"`
}

// Pay reports a payment.
type Pay struct {
	Reference string `json:"reference"`
	Amount    int64  `json:"amount"`
}

// Ship reports that the goods left.
type Ship struct {
	Tracking string `json:"tracking"`
}

// Cancel asks to cancel the order.
type Cancel struct {
	Reason string `json:"reason"`
}

// Service is the shop's orders.
var Service = guest.New[Order]("orders").Version("1").Events(
	guest.Named(LineAdded{}, "line_added"),
	guest.Named(LineRemoved{}, "line_removed"),
	guest.Named(OrderPlaced{}, "placed"),
	guest.Named(OrderPaid{}, "paid"),
	guest.Named(OrderShipped{}, "shipped"),
	guest.Named(OrderCancelled{}, "cancelled"),
)

func init() {
	guest.Command(Service, "add", add)
	guest.Command(Service, "remove", remove)
	guest.Command(Service, "place", place)
	guest.Command(Service, "pay", pay)
	guest.Command(Service, "ship", ship)
	guest.Command(Service, "cancel", cancel)
	guest.Query(Service, "show", func(v *guest.View[Order], _ struct{}) (Order, error) { return *v.State(), nil })
}

// in rejects a command unless the order is in the wanted stage.
func in(o *Order, want Status) error {
	if o.Status == want {
		return nil
	}
	return guest.Reject("wrong_status", "the order is "+name(o.Status)+"; it must be "+name(want))
}

func name(s Status) string {
	if s == Draft {
		return "a draft"
	}
	return string(s)
}

func add(tx *guest.Tx[Order], l Line) (Order, error) {
	o := tx.State()
	if err := in(o, Draft); err != nil {
		return Order{}, err
	}
	switch {
	case l.SKU == "" || l.Quantity <= 0 || l.Price < 0:
		return Order{}, guest.Reject("bad_line", "a line has an article, a quantity above nothing, and a price")
	case l.Price > 0 && l.Quantity > (math.MaxInt64-o.Total)/l.Price:
		return Order{}, guest.Reject("bad_line", "the order would cost more than can be counted")
	case len(o.Lines) >= MaxLines:
		return Order{}, guest.Reject("too_many_lines", "an order has at most "+strconv.Itoa(MaxLines)+" lines")
	}
	if i := o.find(l.SKU); i >= 0 && o.Lines[i].Quantity > math.MaxInt64-l.Quantity {
		return Order{}, guest.Reject("bad_line", "the order would have more of it than can be counted")
	}
	tx.Emit(LineAdded{l})
	return *o, nil
}

func remove(tx *guest.Tx[Order], c Remove) (Order, error) {
	o := tx.State()
	if err := in(o, Draft); err != nil {
		return Order{}, err
	}
	if o.find(c.SKU) < 0 {
		return Order{}, guest.Reject("no_line", "the order has no such article")
	}
	tx.Emit(LineRemoved{c.SKU})
	return *o, nil
}

func place(tx *guest.Tx[Order], _ struct{}) (Order, error) {
	o := tx.State()
	if err := in(o, Draft); err != nil {
		return Order{}, err
	}
	if len(o.Lines) == 0 {
		return Order{}, guest.Reject("empty", "an order has at least one line")
	}
	tx.Emit(OrderPlaced{o.Total, tx.Now()})
	return *o, nil
}

func pay(tx *guest.Tx[Order], c Pay) (Order, error) {
	o := tx.State()
	if err := in(o, Placed); err != nil {
		return Order{}, err
	}
	if c.Amount != o.Total {
		return Order{}, guest.Reject("wrong_amount", "the order costs "+strconv.FormatInt(o.Total, 10))
	}
	tx.Emit(OrderPaid{c.Reference})
	return *o, nil
}

func ship(tx *guest.Tx[Order], c Ship) (Order, error) {
	o := tx.State()
	if err := in(o, Paid); err != nil {
		return Order{}, err
	}
	tx.Emit(OrderShipped{c.Tracking})
	return *o, nil
}

func cancel(tx *guest.Tx[Order], c Cancel) (Order, error) {
	o := tx.State()
	switch o.Status {
	case Shipped:
		return Order{}, guest.Reject("wrong_status", "the goods have left; the order cannot be cancelled")
	case Cancelled:
		return Order{}, guest.Reject("wrong_status", "the order is cancelled")
	}
	tx.Emit(OrderCancelled{c.Reason})
	return *o, nil
}
