// The numeric kernels in C: tighter code than Go makes, and so harder on a meter.
// Each export does its work n times and returns a number that depends on all of it.

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#define EXPORT(name) __attribute__((export_name(name)))

EXPORT("loop") i64 loop(int n) {
  u64 x = 88172645463325252ull;
  for (; n > 0; n--)
    for (int i = 0; i < 10000; i++) {
      x ^= x << 13;
      x ^= x >> 7;
      x ^= x << 17;
    }
  return (i64)x;
}

static __attribute__((noinline)) i64 fibonacci(i64 n) {
  return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

EXPORT("recursion") i64 recursion(int n) {
  i64 sum = 0;
  for (; n > 0; n--) sum += fibonacci(15 + (n & 3));
  return sum;
}

#define SIZE 48
static double a[SIZE][SIZE], b[SIZE][SIZE], c[SIZE][SIZE];

EXPORT("matrix") i64 matrix(int n) {
  for (int i = 0; i < SIZE; i++)
    for (int j = 0; j < SIZE; j++) {
      a[i][j] = (double)(i - j) / 7;
      b[i][j] = (double)(i + j) / 11;
    }
  for (; n > 0; n--) {
    for (int i = 0; i < SIZE; i++)
      for (int j = 0; j < SIZE; j++) {
        double sum = 0;
        for (int k = 0; k < SIZE; k++) sum += a[i][k] * b[k][j];
        c[i][j] = __builtin_sqrt(__builtin_fabs(sum));
      }
    for (int i = 0; i < SIZE; i++)
      for (int j = 0; j < SIZE; j++) a[i][j] = c[i][j];
  }
  return (i64)(a[3][5] * 1e6);
}

static u8 composite[10000];

EXPORT("sieve") i64 sieve(int n) {
  i64 sum = 0;
  for (; n > 0; n--) {
    for (int i = 0; i < 10000; i++) composite[i] = 0;
    for (int i = 2; i < 10000; i++) {
      if (composite[i]) continue;
      sum++;
      for (int j = i * i; j < 10000; j += i) composite[j] = 1;
    }
  }
  return sum;
}

static u32 table[256];
static u8 data[4096];

EXPORT("crc") i64 crc(int n) {
  for (u32 i = 0; i < 256; i++) {
    u32 v = i;
    for (int k = 0; k < 8; k++) v = v & 1 ? 0xedb88320u ^ (v >> 1) : v >> 1;
    table[i] = v;
  }
  u32 sum = ~0u;
  for (; n > 0; n--) {
    data[n & 4095]++;
    for (int i = 0; i < 4096; i++) sum = table[(sum ^ data[i]) & 0xff] ^ (sum >> 8);
  }
  return sum;
}

static int numbers[2000];

static void quicksort(int *v, int n) {
  while (n > 1) {
    int pivot = v[n / 2], i = 0, j = n - 1;
    while (i <= j) {
      while (v[i] < pivot) i++;
      while (v[j] > pivot) j--;
      if (i <= j) {
        int t = v[i];
        v[i++] = v[j];
        v[j--] = t;
      }
    }
    quicksort(v, j + 1);
    v += i;
    n -= i;
  }
}

EXPORT("sort") i64 sort(int n) {
  i64 sum = 0;
  u32 x = 1;
  for (; n > 0; n--) {
    for (int i = 0; i < 2000; i++) {
      x = x * 1664525u + 1013904223u;
      numbers[i] = (int)x;
    }
    quicksort(numbers, 2000);
    sum += numbers[1000];
  }
  return sum;
}

static u8 from[64 << 10], to[64 << 10];

EXPORT("memcpy") i64 copy(int n) {
  i64 sum = 0;
  for (; n > 0; n--) {
    from[n & 4095]++;
    __builtin_memcpy(to, from, sizeof to);
    sum += to[n & 4095];
  }
  return sum;
}

// Words of text, one byte at a time: branches that nobody can foresee.
static const char text[] = "{\"from\":\"alice\",\"to\":\"bob\",\"amount\":250,\"note\":\"thanks for the \\\"fish\\\"\",\"tags\":[\"food\",\"friends\"]}";

EXPORT("scan") i64 scan(int n) {
  i64 sum = 0;
  for (; n > 0; n--) {
    int depth = 0, string = 0;
    i64 number = 0;
    for (const char *p = text; *p; p++) {
      char c = *p;
      if (string) {
        if (c == '\\')
          p++;
        else if (c == '"')
          string = 0;
        else
          sum += c;
        continue;
      }
      switch (c) {
        case '"': string = 1; break;
        case '{': case '[': depth++; break;
        case '}': case ']': depth--; break;
        case ',': sum += number * depth; number = 0; break;
        default: if (c >= '0' && c <= '9') number = number * 10 + (c - '0');
      }
    }
  }
  return sum;
}
