// A FIDO2 token in software, in the form that OpenSSH loads (SSH_SK_PROVIDER): for tests, where no hardware is.
//
// It makes Ed25519 keys and signs with them as hardware does: over SHA-256 of the application, flags, a counter, and SHA-256 of the
// message. The key handle, which OpenSSH stores in the key's file, is the secret seed itself, which is what makes it worthless for
// anything but tests. PENSTOCK_TEST_TOUCH=no: nobody touches it, and it signs all the same, without saying that somebody did.
// PENSTOCK_TEST_PIN=PIN: it asks for this PIN where verification is demanded.
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

// Of libcrypto, whose headers a machine that runs tests may lack.
typedef struct evp_pkey_st EVP_PKEY;
typedef struct evp_md_ctx_st EVP_MD_CTX;
enum { EVP_PKEY_ED25519 = 1087 };
EVP_PKEY *EVP_PKEY_new_raw_private_key(int type, void *engine, const uint8_t *key, size_t length);
int EVP_PKEY_get_raw_public_key(const EVP_PKEY *key, uint8_t *into, size_t *length);
void EVP_PKEY_free(EVP_PKEY *key);
EVP_MD_CTX *EVP_MD_CTX_new(void);
void EVP_MD_CTX_free(EVP_MD_CTX *context);
int EVP_DigestSignInit(EVP_MD_CTX *context, void *pctx, const void *type, void *engine, EVP_PKEY *key);
int EVP_DigestSign(EVP_MD_CTX *context, uint8_t *signature, size_t *length, const uint8_t *message, size_t message_length);
uint8_t *SHA256(const uint8_t *bytes, size_t length, uint8_t *into);

enum { ED25519 = 1, PRESENCE = 0x01, VERIFICATION = 0x04 };
enum { FAILED = -1, UNSUPPORTED = -2, PIN_REQUIRED = -3 };

struct enrolled {
  uint8_t flags;
  uint8_t *public_key;
  size_t public_key_length;
  uint8_t *handle;
  size_t handle_length;
  uint8_t *signature;
  size_t signature_length;
  uint8_t *certificate;
  size_t certificate_length;
  uint8_t *authdata;
  size_t authdata_length;
};

struct signature {
  uint8_t flags;
  uint32_t counter;
  uint8_t *r;
  size_t r_length;
  uint8_t *s;
  size_t s_length;
};

uint32_t sk_api_version(void) { return 0x000a0000; }

static uint8_t *copied(const uint8_t *bytes, size_t length) {
  uint8_t *copy = malloc(length);
  if (copy) memcpy(copy, bytes, length);
  return copy;
}

int sk_enroll(uint32_t algorithm, const uint8_t *challenge, size_t challenge_length, const char *application, uint8_t flags,
              const char *pin, void **options, struct enrolled **result) {
  uint8_t seed[32], point[32];
  size_t length = sizeof point;
  if (algorithm != ED25519) return UNSUPPORTED;
  if (getrandom(seed, sizeof seed, 0) != sizeof seed) return FAILED;
  EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, sizeof seed);
  if (!key || EVP_PKEY_get_raw_public_key(key, point, &length) != 1) return FAILED;
  EVP_PKEY_free(key);
  struct enrolled *made = calloc(1, sizeof *made);
  made->flags = flags;
  made->public_key = copied(point, made->public_key_length = sizeof point);
  made->handle = copied(seed, made->handle_length = sizeof seed);
  made->signature = calloc(1, 1);
  *result = made;
  return 0;
}

int sk_sign(uint32_t algorithm, const uint8_t *data, size_t length, const char *application, const uint8_t *handle,
            size_t handle_length, uint8_t flags, const char *pin, void **options, struct signature **result) {
  static const uint8_t counter[4] = {0x12, 0x34, 0x56, 0x78};
  uint8_t signed_bytes[32 + 1 + 4 + 32], signature[64];
  size_t signature_length = sizeof signature;
  const char *touch = getenv("PENSTOCK_TEST_TOUCH"), *expected = getenv("PENSTOCK_TEST_PIN");
  if (algorithm != ED25519 || handle_length != 32) return UNSUPPORTED;
  if ((flags & VERIFICATION) && expected && (!pin || strcmp(pin, expected))) return PIN_REQUIRED;
  if (touch && !strcmp(touch, "no")) flags &= ~PRESENCE;
  SHA256((const uint8_t *)application, strlen(application), signed_bytes);
  signed_bytes[32] = flags;
  memcpy(signed_bytes + 33, counter, sizeof counter);
  SHA256(data, length, signed_bytes + 37);
  EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, handle, handle_length);
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  int fine = key && context && EVP_DigestSignInit(context, NULL, NULL, NULL, key) == 1 &&
             EVP_DigestSign(context, signature, &signature_length, signed_bytes, sizeof signed_bytes) == 1;
  EVP_MD_CTX_free(context);
  EVP_PKEY_free(key);
  if (!fine) return FAILED;
  struct signature *made = calloc(1, sizeof *made);
  made->flags = flags;
  made->counter = 0x12345678;
  made->r = copied(signature, made->r_length = sizeof signature);
  *result = made;
  return 0;
}

int sk_load_resident_keys(const char *pin, void **options, void ***keys, size_t *count) { return UNSUPPORTED; }
