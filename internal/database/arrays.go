package database

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"
)

// registerArrays has arrays of ids and of places written and read in one loop. By
// pgx's own codec each element is boxed and planned: 150 ns each, where millions
// of ids are read. The format is that of array_send() in PostgreSQL's arrayfuncs.c.
func registerArrays(types *pgtype.Map) {
	register(types, "_uuid", "uuid", array[uuid.UUID]{
		size: len(uuid.UUID{}),
		put:  func(buf []byte, id uuid.UUID) []byte { return append(buf, id[:]...) },
		get:  func(src []byte) uuid.UUID { return uuid.UUID(src) },
	})
	register(types, "_tid", "tid", array[pgtype.TID]{
		size: 6,
		put: func(buf []byte, place pgtype.TID) []byte {
			return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint32(buf, place.BlockNumber), place.OffsetNumber)
		},
		get: func(src []byte) pgtype.TID {
			return pgtype.TID{BlockNumber: binary.BigEndian.Uint32(src), OffsetNumber: binary.BigEndian.Uint16(src[4:]), Valid: true}
		},
	})
}

func register[T any](types *pgtype.Map, name, elementName string, codec array[T]) {
	known, _ := types.TypeForName(name)
	element, _ := types.TypeForName(elementName)
	codec.ArrayCodec, codec.element = &pgtype.ArrayCodec{ElementType: element}, element.OID
	types.RegisterType(&pgtype.Type{Name: name, OID: known.OID, Codec: codec})
}

// array is the codec of one-dimensional arrays of a type whose values all have the
// same size and are never null, as []T. Whatever else is asked of it, the codec of
// pgx does.
type array[T any] struct {
	*pgtype.ArrayCodec
	element uint32 // its OID
	size    int    // of a value, in bytes
	put     func(buf []byte, value T) []byte
	get     func(src []byte) T
}

// PlanEncode implements [pgtype.Codec].
func (a array[T]) PlanEncode(types *pgtype.Map, oid uint32, format int16, value any) pgtype.EncodePlan {
	if _, ok := value.([]T); ok && format == pgtype.BinaryFormatCode {
		return a
	}
	return a.ArrayCodec.PlanEncode(types, oid, format, value)
}

// PlanScan implements [pgtype.Codec].
func (a array[T]) PlanScan(types *pgtype.Map, oid uint32, format int16, target any) pgtype.ScanPlan {
	if _, ok := target.(*[]T); ok && format == pgtype.BinaryFormatCode {
		return a
	}
	return a.ArrayCodec.PlanScan(types, oid, format, target)
}

// Encode implements [pgtype.EncodePlan].
func (a array[T]) Encode(value any, buf []byte) ([]byte, error) {
	values, ok := value.([]T)
	if !ok {
		return nil, fmt.Errorf("%T is no array of these", value)
	}
	if values == nil {
		return nil, nil
	}
	dimensions := min(len(values), 1)
	buf = binary.BigEndian.AppendUint32(buf, uint32(dimensions))
	buf = binary.BigEndian.AppendUint32(buf, 0) // no nulls
	buf = binary.BigEndian.AppendUint32(buf, a.element)
	if dimensions == 0 {
		return buf, nil
	}
	buf = binary.BigEndian.AppendUint32(buf, uint32(len(values))) //nolint:gosec // PostgreSQL takes fewer than that
	buf = binary.BigEndian.AppendUint32(buf, 1)                   // the first index
	for _, value := range values {
		buf = binary.BigEndian.AppendUint32(buf, uint32(a.size)) //nolint:gosec // a few bytes
		buf = a.put(buf, value)
	}
	return buf, nil
}

var errArray = errors.New("this is no one-dimensional array without nulls")

// Scan implements [pgtype.ScanPlan].
func (a array[T]) Scan(src []byte, target any) error {
	values, ok := target.(*[]T)
	if !ok {
		return fmt.Errorf("%T takes no array of these", target)
	}
	const header, dimension, length = 12, 8, 4
	switch {
	case src == nil:
		*values = nil
		return nil
	case len(src) < header:
		return errArray
	case binary.BigEndian.Uint32(src) == 0:
		*values = []T{}
		return nil
	case binary.BigEndian.Uint32(src) > 1 || len(src) < header+dimension:
		return errArray
	}
	count, rest := int(binary.BigEndian.Uint32(src[header:])), src[header+dimension:]
	if len(rest) != count*(length+a.size) {
		return errArray // a null has no bytes
	}
	*values = make([]T, count)
	for i := range *values {
		if int(binary.BigEndian.Uint32(rest)) != a.size {
			return errArray
		}
		(*values)[i], rest = a.get(rest[length:]), rest[length+a.size:]
	}
	return nil
}
